//! From a raw record to a processed one: total, pure, no input or output.

mod budget;
mod numbers;
mod program;
mod stack;

use std::sync::Arc;

use crate::error::Result;
use crate::record::Record;

pub(crate) use self::stack::on_large_stack;

/// A transform. The same record always has the same outcome.
pub trait Transform: Send + Sync {
    /// What becomes of a record.
    fn apply(&self, record: Record) -> Outcome;

    /// Whether every record goes on as it is, so that none needs to be looked at.
    fn is_identity(&self) -> bool {
        false
    }
}

/// What becomes of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It goes on, perhaps with another value.
    Forward(Record),
    /// It is left out, by the program's will.
    Drop,
    /// It can never succeed.
    Reject {
        /// The record as it was.
        record: Record,
        /// Why.
        reason: String,
    },
}

/// Leaves every record as it is.
struct Identity;

impl Transform for Identity {
    fn apply(&self, record: Record) -> Outcome {
        Outcome::Forward(record)
    }

    fn is_identity(&self) -> bool {
        true
    }
}

/// Checks and compiles a program; none is identity. The error names the field `transform`, and
/// line and column.
pub fn compile(program: Option<&str>) -> Result<Arc<dyn Transform>> {
    match program {
        Some(source) => Ok(Arc::new(program::Program::compile(source)?)),
        None => Ok(Arc::new(Identity)),
    }
}
