//! Which workers run, by role.

use std::sync::Arc;

use broker::audit::Audit;
use broker::{Catalog, Group, Router, Selection, Sink, Stage, Worker};

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
    let (log, clock) = (Arc::clone(&parts.log), Arc::clone(&parts.clock));
    supervisor.keep(name, move |stop| {
        let (log, clock, sink) = (log.clone(), clock.clone(), sink());
        let share = (selection.clone(), group.clone());
        async move {
            let worker = Worker::open(log.as_ref(), share, sink, clock).await?;
            worker.run(stop).await
        }
    });
}
