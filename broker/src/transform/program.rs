//! Programs in the Vector Remap Language, compiled once and run once a record.
//!
//! What a program comes to: if it ends in a statement (an assignment, a `del` or `assert` call, an
//! `if` that has no `else` or ends in statements on every path), the event `.` as it left it;
//! otherwise the value of its last expression. An object goes on, `null` drops the event, anything
//! else rejects it. Functions whose result is not decided by their arguments are not offered, so
//! that the same raw record always comes to the same outcome.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use vrl::compiler::runtime::{Runtime, Terminate};
use vrl::compiler::{ExpressionError, Function, TargetValue, TimeZone};
use vrl::diagnostic::DiagnosticList;
use vrl::parser::ast::{Block, Container, Expr, RootExpr};
use vrl::value::{ObjectMap, Secrets, Value};

use super::budget::Budget;
use super::numbers::first_inexact;
use super::stack::on_large_stack;
use super::{Outcome, Transform};
use crate::error::{Error, Result};
use crate::record::Record;

/// The largest event that a program may make, in bytes.
const RESULT_BYTES_MAX: usize = 4 << 20;
/// How deep brackets may nest in a program.
const NESTING_MAX: usize = 64;
/// How many operator characters a program may hold: each may be one level of the expression tree.
const OPERATORS_MAX: usize = 500;
/// Functions whose result is not decided by their arguments.
const IMPURE: [&str; 14] = [
    "now",
    "uuid_v4",
    "uuid_v7",
    "random_bool",
    "random_bytes",
    "random_float",
    "random_int",
    "get_env_var",
    "get_hostname",
    "get_timezone_name",
    "log",
    "get_secret",
    "set_secret",
    "remove_secret",
];

/// Functions called for what they do to the event, not for what they return.
const STATEMENTS: [&str; 4] = ["del", "assert", "assert_eq", "for_each"];

/// A compiled program.
pub(super) struct Program {
    program: vrl::compiler::Program,
    time_zone: TimeZone,
}

impl Program {
    /// Checks and compiles the source. The error names line and column.
    pub(super) fn compile(source: &str) -> Result<Self> {
        check_shape(source)?;
        on_large_stack(|| Self::compile_checked(source))
    }

    fn compile_checked(source: &str) -> Result<Self> {
        let parsed = catch_unwind(|| vrl::parser::parse(source)).ok();
        let ends_in_statement = match &parsed {
            Some(Ok(parsed)) => match parsed.0.last().map(|last| last.inner()) {
                Some(RootExpr::Expr(last)) => is_statement(last.inner()),
                Some(RootExpr::Error(_)) => false,
                None => return Err(refused("the program is empty")),
            },
            _ => false,
        };
        let whole = if ends_in_statement { format!("{source}\n.") } else { source.to_owned() };
        let compiled = catch_unwind(|| vrl::compiler::compile(&whole, &pure_functions()));
        let compiled = compiled.map_err(|_| refused("the compiler failed on this program"))?;
        let compiled = compiled.map_err(|problems| refused(describe(source, &problems)))?;
        let result = compiled.program.final_type_info().result;
        if !result.is_never() && !result.contains_object() && !result.contains_null() {
            return Err(refused("the program never comes to an object or null; end it with `.`"));
        }
        let time_zone = TimeZone::parse("UTC").unwrap_or_default();
        Ok(Self { program: compiled.program, time_zone })
    }

    fn run(&self, event: Value) -> std::result::Result<Value, String> {
        let mut target = TargetValue {
            value: event,
            metadata: Value::Object(ObjectMap::new()),
            secrets: Secrets::default(),
        };
        let mut budget = Budget::new();
        let mut step = || budget.step();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            Runtime::default().resolve_with_control(&mut target, &self.program, &self.time_zone, &mut step)
        }));
        match ended {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Terminate::Interrupted)) => Err(budget.exceeded()),
            Ok(Err(Terminate::Abort(ExpressionError::Abort { message, .. }))) => {
                Err(message.unwrap_or_else(|| "aborted".to_owned()))
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the program panicked".to_owned()),
        }
    }

    fn try_apply(&self, record: &Record) -> std::result::Result<Applied, String> {
        if let Some(number) = first_inexact(&record.value) {
            return Err(format!("the number {number} cannot be held exactly by a transform"));
        }
        let event: Value = serde_json::from_slice(&record.value)
            .map_err(|error| format!("the event is not JSON: {error}"))?;
        let value = self.run(event.clone())?;
        match value {
            value if value == event => Ok(Applied::Unchanged),
            Value::Null => Ok(Applied::Drop),
            Value::Object(_) => encode(&value).map(Applied::Changed),
            other => Err(format!("the program came to {} instead of an object or null", other.kind_str())),
        }
    }
}

enum Applied {
    Unchanged,
    Changed(Bytes),
    Drop,
}

impl Transform for Program {
    fn apply(&self, mut record: Record) -> Outcome {
        match on_large_stack(|| self.try_apply(&record)) {
            Ok(Applied::Unchanged) => Outcome::Forward(record),
            Ok(Applied::Changed(value)) => {
                record.value = value;
                Outcome::Forward(record)
            }
            Ok(Applied::Drop) => Outcome::Drop,
            Err(reason) => Outcome::Reject { record, reason },
        }
    }
}

fn encode(value: &Value) -> std::result::Result<Bytes, String> {
    let bytes = serde_json::to_vec(value).map_err(|error| format!("the result is not JSON: {error}"))?;
    if bytes.len() > RESULT_BYTES_MAX {
        return Err(format!("the result has {} bytes, more than {RESULT_BYTES_MAX}", bytes.len()));
    }
    Ok(bytes.into())
}

fn pure_functions() -> Vec<Box<dyn Function>> {
    let mut functions = vrl::stdlib::all();
    functions.retain(|function| !IMPURE.contains(&function.identifier()));
    functions
}

fn is_statement(expression: &Expr) -> bool {
    match expression {
        Expr::Assignment(_) => true,
        Expr::FunctionCall(call) => STATEMENTS.contains(&call.ident.to_string().trim_end_matches('!')),
        Expr::IfStatement(choice) => match &choice.else_node {
            Some(otherwise) => block_is_statement(&choice.if_node) && block_is_statement(otherwise),
            None => true,
        },
        Expr::Container(container) => match container.inner() {
            Container::Block(block) => block_is_statement(block),
            _ => false,
        },
        _ => false,
    }
}

fn block_is_statement(block: &Block) -> bool {
    block.0.last().is_some_and(|last| is_statement(last.inner()))
}

/// Bounds the depth of the tree before anything walks it.
fn check_shape(source: &str) -> Result<()> {
    let (mut depth, mut operators) = (0_usize, 0_usize);
    for character in source.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '+' | '-' | '*' | '/' | '%' | '&' | '|' | '?' | '!' | '<' | '>' | '=' => operators += 1,
            _ => {}
        }
        if depth > NESTING_MAX {
            return Err(refused(format!("brackets nest deeper than {NESTING_MAX}")));
        }
    }
    if operators > OPERATORS_MAX {
        return Err(refused(format!("the program has more than {OPERATORS_MAX} operators")));
    }
    Ok(())
}

fn refused(message: impl Into<String>) -> Error {
    Error::invalid("transform", message)
}

/// The compiler's errors, each with its line and column.
fn describe(source: &str, problems: &DiagnosticList) -> String {
    let described = problems.iter().filter(|problem| problem.is_problem()).map(|problem| {
        let start = problem.labels().first().map_or(0, |label| label.span.start());
        let before = source.get(..start.min(source.len())).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&character| character != '\n').count() + 1;
        let details = problem.labels().iter().map(|label| label.message.as_str());
        let details: Vec<&str> = details.filter(|detail| !detail.is_empty()).collect();
        format!("line {line}, column {column}: {} ({})", problem.message(), details.join("; "))
    });
    described.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn apply(program: &str, event: &str) -> Outcome {
        let record = Record::new(event.to_owned(), Timestamp::default());
        Program::compile(program).unwrap().apply(record)
    }

    fn forwarded(program: &str, event: &str) -> String {
        match apply(program, event) {
            Outcome::Forward(record) => String::from_utf8(record.value.to_vec()).unwrap(),
            other => panic!("{program} came to {other:?}"),
        }
    }

    fn reason(program: &str, event: &str) -> String {
        match apply(program, event) {
            Outcome::Reject { record, reason } => {
                assert_eq!(record.value, event.as_bytes(), "a rejected record keeps its bytes");
                reason
            }
            other => panic!("{program} came to {other:?}"),
        }
    }

    #[test]
    fn an_object_goes_on() {
        assert_eq!(forwarded(".b = .a", r#"{"a":1}"#), r#"{"a":1,"b":1}"#);
        assert_eq!(forwarded(".b = .a\n.", r#"{"a":1}"#), r#"{"a":1,"b":1}"#);
        assert_eq!(forwarded("{\"only\": .a}", r#"{"a":1}"#), r#"{"only":1}"#);
        assert_eq!(forwarded("del(.a)", r#"{"a":1,"b":2}"#), r#"{"b":2}"#);
        assert_eq!(forwarded("if .a == 1 { .late = true }", r#"{"a":1}"#), r#"{"a":1,"late":true}"#);
    }

    #[test]
    fn an_event_that_is_left_as_it_was_keeps_its_bytes() {
        for event in [r#"{ "a" : 1.50, "a":2e0 }"#, r#"{"b":"\u0041"}"#] {
            assert_eq!(forwarded("if .nothing == 1 { .late = true }", event), event);
            assert_eq!(forwarded(".", event), event);
        }
    }

    #[test]
    fn null_drops() {
        for program in ["null", ". = null", "if .a == 1 { null } else { . }", "if .a == 1 { . = null }"] {
            assert_eq!(apply(program, r#"{"a":1}"#), Outcome::Drop, "{program}");
        }
    }

    #[test]
    fn abort_errors_and_other_results_reject_with_their_message() {
        assert_eq!(reason("if .a == 1 { abort \"too late\" }", r#"{"a":1}"#), "too late");
        assert_eq!(reason("abort", r#"{"a":1}"#), "aborted");
        assert!(reason(".b = to_int!(.a)", r#"{"a":"x"}"#).contains("to_int"));
        assert!(reason(".a", r#"{"a":"x"}"#).contains("instead of an object"));
        assert!(reason(".", "{").contains("not JSON"));
    }

    #[test]
    fn numbers_that_would_change_reject() {
        for number in ["18446744073709551615", "1e400", "0.12345678901234567890123"] {
            let event = format!(r#"{{"a":{number}}}"#);
            assert!(reason(".", &event).contains(number));
        }
        let event = r#"{"a":9223372036854775807,"b":0.1}"#;
        assert_eq!(forwarded(".c = 1", event), r#"{"a":9223372036854775807,"b":0.1,"c":1}"#);
    }

    #[test]
    fn a_program_is_checked_when_it_is_compiled() {
        for (program, expected) in [
            (".a = 1\n.b = to_int(.a", "line 2"),
            (".a = nothing(1)", "line 1, column 6"),
            (".a = now()", "line 1, column 6"),
            (".a = uuid_v4()", "undefined function"),
            ("1 + 1", "never comes to an object"),
            ("", "empty"),
        ] {
            let error = Program::compile(program).err().unwrap();
            assert_eq!(error.field(), Some("transform"));
            assert!(error.message().contains(expected), "{program}: {error}");
        }
        let deep = format!("{}1{}", "(".repeat(1_000), ")".repeat(1_000));
        assert!(Program::compile(&deep).err().unwrap().message().contains("nest"));
    }

    #[test]
    fn a_program_that_works_too_long_or_grows_too_much_rejects() {
        let items = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(3_000));
        let nested = "for_each(array!(.a)) -> |_i, x| { for_each(array!(.a)) -> |_j, y| { .sum = x } }";
        assert!(reason(nested, &items).contains("steps"));
        let doubling = "x = string!(.a)\nfor_each(array!(.n)) -> |_i, _v| { x = x + x }\n.x = x";
        let event = format!(r#"{{"a":"{}","n":[{}1]}}"#, "a".repeat(1 << 20), "1,".repeat(40));
        assert!(reason(doubling, &event).contains("bytes"));
    }

    #[test]
    fn the_deepest_program_fits_the_stack() {
        let sum = format!(".a = 1{}", "+1".repeat(OPERATORS_MAX - 1));
        assert_eq!(forwarded(&sum, "{}"), format!(r#"{{"a":{OPERATORS_MAX}}}"#));
        let error = Program::compile(&format!("{sum}+1")).err().unwrap();
        assert!(error.message().contains("operators"));
        let not = format!(".a = {}true", "!".repeat(OPERATORS_MAX - 2));
        assert_eq!(forwarded(&not, "{}"), r#"{"a":true}"#);
    }
}
