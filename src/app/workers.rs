//! Which workers run, by role.

use std::sync::Arc;

use broker::{Group, Router, Selection, Sink, Stage, Worker};

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
        work(supervisor, parts, ("router", Stage::Raw, Group::ROUTER), router);
    }
    if config.roles.has(Role::Query) {
        let indexer = parts.indexer.clone();
        supervisor.keep("tails", move |stop| indexer.clone().keep_tails(stop));
    }
    if config.roles.has(Role::Sinks) {
        let archive = parts.archive.clone();
        work(supervisor, parts, ("archive", Stage::Processed, Group::ARCHIVE), move || archive.sink());
        let indexer = parts.indexer.clone();
        work(supervisor, parts, ("index", Stage::Processed, Group::INDEX), move || indexer.sink());
        let indexer = parts.indexer.clone();
        supervisor.keep("splits", move |stop| indexer.clone().keep_splits(stop));
    } else if config.roles.has(Role::Query) {
        let indexer = parts.indexer.clone();
        supervisor.keep("splits", move |stop| indexer.clone().keep_copies(stop));
    }
}

/// Keeps one worker: a new sink and a new reader each time it is opened.
fn work(
    supervisor: &Supervisor,
    parts: &Parts,
    (name, stage, group): (&'static str, Stage, Group),
    sink: impl Fn() -> Box<dyn Sink> + Send + 'static,
) {
    let (log, clock) = (Arc::clone(&parts.log), Arc::clone(&parts.clock));
    supervisor.keep(name, move |stop| {
        let (log, clock, group, sink) = (log.clone(), clock.clone(), group.clone(), sink());
        async move {
            let worker = Worker::open(log.as_ref(), (Selection::Stage(stage), group), sink, clock).await?;
            worker.run(stop).await
        }
    });
}
