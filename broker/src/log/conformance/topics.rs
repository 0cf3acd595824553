//! Cases of topics.

use super::{Bench, append, ensure, fails, kept, place, same, take, values};
use crate::error::{Kind, Result};
use crate::log::Selection;
use crate::topic::{Confidentiality, Offset, Stage};

/// Creating and deleting may be repeated.
pub async fn creates_and_deletes_repeatedly(bench: &Bench<'_>) -> Result<()> {
    let log = bench.log().await?;
    let topic = bench.stream()?.topic(Confidentiality::Red, Stage::Dead);
    log.delete(&topic).await?;
    log.create(&topic, &kept(3)).await?;
    log.create(&topic, &kept(3)).await?;
    same(&log.partitions(&topic).await?, &3, "partitions")?;
    log.delete(&topic).await?;
    log.delete(&topic).await?;
    fails(log.partitions(&topic).await, Kind::NotFound, "partitions of a deleted topic")
}

/// A topic keeps its number of partitions.
pub async fn keeps_the_number_of_partitions(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 2).await?);
    fails(log.create(&topic, &kept(3)).await, Kind::Conflict, "create with other partitions")?;
    drop(log);
    let log = bench.reopen().await?;
    same(&log.partitions(&topic).await?, &2, "partitions after a reopening")
}

/// A topic that is made again holds nothing of the one before, nor anybody's progress.
pub async fn is_fresh_when_made_again(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let (place, group) = (place(&topic, 0), bench.group("g"));
    append(&*log, &place, &[bench.record("old 1"), bench.record("old 2")]).await?;
    let mut reader = log.subscribe(Selection::Topic(topic.clone()), &group).await?;
    let (_, reached) = take(&mut *reader, &topic, 2).await?;
    reader.commit(&reached, Vec::new()).await?;
    drop(reader);

    log.delete(&topic).await?;
    log.create(&topic, &kept(1)).await?;
    ensure(log.committed(&group, &topic).await?.is_empty(), || "progress outlived its topic".to_owned())?;
    let appended = append(&*log, &place, &[bench.record("new")]).await?;
    same(&appended.offset(0), &Offset(0), "the first offset of a topic made again")?;
    let mut reader = log.subscribe(Selection::Topic(topic.clone()), &group).await?;
    let (taken, _) = take(&mut *reader, &topic, 1).await?;
    same(&super::values_of(&taken), &vec!["new".into()], "what a reader gets of a topic made again")?;
    drop((reader, log));
    let log = bench.reopen().await?;
    same(&values(&*log, &place).await?, &vec!["new".into()], "a topic made again, after a reopening")
}
