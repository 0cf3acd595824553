//! Which workers run, by role.

use broker::audit::Audit;
use broker::catalog::SinkKind;
use broker::{Catalog, Error, Group, Kind, Router, Selection, Sink, Stage, Worker};

use tracing::warn;

use super::parts::Parts;
use crate::config::{Config, Role};
use crate::supervise::Supervisor;

/// Starts the catalog's follower and the workers of the configured roles.
pub(super) fn start(supervisor: &Supervisor, parts: &Parts, config: &Config) {
    let catalog = parts.catalog.clone();
    supervisor.keep("catalog", move |stop| {
        let catalog = catalog.clone();
        async move { catalog.follow(stop).await }
    });
    if config.roles.has(Role::Router) {
        let catalog = parts.catalog.clone();
        let router = move || Box::new(Router::new(catalog.clone())) as Box<dyn Sink>;
        work(supervisor, parts, ("router", of(Stage::Raw), Group::ROUTER), router);
        let catalog = parts.catalog.clone();
        let audit = move || Box::new(Audit::new(catalog.clone())) as Box<dyn Sink>;
        work(supervisor, parts, ("audit", Selection::Topic(Catalog::topic()), Group::AUDIT), audit);
    }
    if config.roles.has(Role::Query) {
        let indexer = parts.indexer.clone();
        supervisor.keep("tails", move |stop| indexer.clone().keep_tails(stop));
        let indexer = parts.indexer.clone();
        supervisor.keep("tables", move |stop| indexer.clone().keep_tables(stop));
    }
    if config.roles.has(Role::Sinks) {
        let archive = parts.archive.clone();
        work(supervisor, parts, ("archive", of(Stage::Processed), Group::ARCHIVE), move || archive.sink());
        let indexer = parts.indexer.clone();
        work(supervisor, parts, ("index", of(Stage::Processed), Group::INDEX), move || indexer.sink());
        let indexer = parts.indexer.clone();
        supervisor.keep("splits", move |stop| indexer.clone().keep_splits(stop));
    } else if config.roles.has(Role::Query) {
        let indexer = parts.indexer.clone();
        supervisor.keep("splits", move |stop| indexer.clone().keep_copies(stop));
    }
}

/// Every stream's topic of a stage.
fn of(stage: Stage) -> Selection {
    Selection::Stage(stage)
}

/// Keeps one worker: a new sink and a new reader each time it is opened.
fn work(
    supervisor: &Supervisor,
    parts: &Parts,
    (name, selection, group): (&'static str, Selection, Group),
    sink: impl Fn() -> Box<dyn Sink> + Send + 'static,
) {
    let (log, clock, catalog) = (parts.log.clone(), parts.clock.clone(), parts.catalog.clone());
    let kind = SinkKind::ALL.into_iter().find(|kind| kind.name() == name);
    supervisor.keep(name, move |stop| {
        let (log, clock, catalog, sink) = (log.clone(), clock.clone(), catalog.clone(), sink());
        let share = (selection.clone(), group.clone());
        async move {
            let worked =
                async { Worker::open(log.as_ref(), share, sink, clock).await?.run(stop).await }.await;
            if let (Some(kind), Err(error)) = (kind, &worked) {
                tell(&catalog, kind, error).await;
            }
            worked
        }
    });
}

/// Lets those who wait for a sink to be switched know why it is not. A share that was lost is taken up by
/// another worker.
async fn tell(catalog: &Catalog, kind: SinkKind, error: &Error) {
    if error.kind() == Kind::Fenced {
        return;
    }
    if let Err(untold) = catalog.fail_sink(kind, &error.to_string()).await {
        warn!(sink = kind.name(), error = %untold, "the catalog does not take why the sink fails");
    }
}
