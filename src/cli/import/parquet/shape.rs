//! What the columns of a file become, found from its schema. A column that cannot be JSON is refused
//! by its name.

use ::parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical};
use ::parquet::schema::types::Type;

use crate::failure::{Exit, Failure};

/// The columns of a row or of a struct: their names as JSON, each with its colon, and their shapes.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) fields: Vec<(Vec<u8>, Shape)>,
}

/// What a column becomes.
#[derive(Debug)]
pub(super) enum Shape {
    /// What the value itself says.
    Plain,
    /// A decimal whose digits a reader may not take exactly as a number becomes text.
    LongDecimal,
    /// Nanoseconds since 1970.
    TimestampNanos,
    /// Nanoseconds since midnight.
    TimeNanos,
    /// Sixteen bytes.
    Uuid,
    Group(Group),
    List(Box<Shape>),
    /// A list of two levels, as old writers have it: what is repeated is the element. The reader gives
    /// it as the only element of another list. Its own elements are never lists.
    OldList(Box<Shape>),
    /// The keys' and the values' shapes.
    Map(Box<Shape>, Box<Shape>),
}

/// Decimals of more digits are not kept by readers whose numbers are floats.
const NUMBER_DIGITS_MAX: i32 = 15;

impl Group {
    /// The shape of a schema's rows.
    pub(super) fn of(schema: &Type) -> Result<Self, Failure> {
        Self::at(schema, "")
    }

    fn at(group: &Type, path: &str) -> Result<Self, Failure> {
        if group.get_fields().is_empty() {
            return Err(refused(path, "it has no fields"));
        }
        let field = |field: &std::sync::Arc<Type>| {
            let separator = if path.is_empty() { "" } else { "." };
            let path = format!("{path}{separator}{}", field.name());
            let mut name = serde_json::to_vec(field.name())
                .map_err(|error| Failure::new(Exit::Failure, format!("write column {path}: {error}")))?;
            name.push(b':');
            Ok((name, Shape::of(field, &path)?))
        };
        Ok(Self { fields: group.get_fields().iter().map(field).collect::<Result<_, Failure>>()? })
    }
}

impl Shape {
    /// The shape of a column, repeated or not.
    fn of(column: &Type, path: &str) -> Result<Self, Failure> {
        let is_repeated = column.get_basic_info().repetition() == Repetition::REPEATED;
        let shape = match column.get_basic_info().converted_type() {
            _ if column.is_primitive() => Self::value(column, path)?,
            ConvertedType::LIST => return Self::list(column, path),
            ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE => return Self::map(column, path),
            _ => Shape::Group(Group::at(column, path)?),
        };
        Ok(if is_repeated { Shape::List(Box::new(shape)) } else { shape })
    }

    /// What is between a list and its elements depends on the writer's age; the rules are those of the
    /// format's specification, and the reader follows the same ones.
    fn list(list: &Type, path: &str) -> Result<Self, Failure> {
        let [repeated] = list.get_fields() else {
            return Err(refused(path, "its list is not well formed"));
        };
        if repeated.get_basic_info().repetition() != Repetition::REPEATED {
            return Err(refused(path, "its list is not well formed"));
        }
        let fields = if repeated.is_group() { repeated.get_fields() } else { &[] };
        let is_repeated = |field: &Type| field.get_basic_info().repetition() == Repetition::REPEATED;
        let is_list =
            repeated.is_group() && repeated.get_basic_info().converted_type() == ConvertedType::LIST;
        match fields {
            [only] if is_list || is_repeated(only) || !is_old_element(repeated.name()) => {
                Ok(Shape::List(Box::new(Self::of(only, path)?)))
            }
            [] if repeated.is_group() => Err(refused(path, "its list has no elements")),
            // The repeated column is the element itself.
            [] => Ok(Shape::OldList(Box::new(Self::value(repeated, path)?))),
            _ => Ok(Shape::OldList(Box::new(Shape::Group(Group::at(repeated, path)?)))),
        }
    }

    fn map(map: &Type, path: &str) -> Result<Self, Failure> {
        let entries = match map.get_fields() {
            [entries] if entries.is_group() => entries.get_fields(),
            _ => &[],
        };
        let [key, value] = entries else {
            return Err(refused(path, "its map is not one of keys and values"));
        };
        if !key.is_primitive() {
            return Err(refused(
                path,
                "a key of JSON is a text, and those of this map are not single values",
            ));
        }
        Ok(Shape::Map(Box::new(Self::value(key, path)?), Box::new(Self::of(value, path)?)))
    }

    fn value(column: &Type, path: &str) -> Result<Self, Failure> {
        let info = column.get_basic_info();
        let (physical, converted) = (column.get_physical_type(), info.converted_type());
        let is_bytes = matches!(physical, Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY);
        match (info.logical_type_ref(), converted) {
            (Some(LogicalType::Uuid), _) => Ok(Shape::Uuid),
            (Some(LogicalType::Float16), _) => Ok(Shape::Plain),
            (Some(LogicalType::Timestamp(time)), _) if time.unit == TimeUnit::NANOS => {
                Ok(Shape::TimestampNanos)
            }
            (Some(LogicalType::Time(time)), _) if time.unit == TimeUnit::NANOS => Ok(Shape::TimeNanos),
            (_, ConvertedType::DECIMAL) if column.get_precision() > NUMBER_DIGITS_MAX => {
                Ok(Shape::LongDecimal)
            }
            (_, ConvertedType::INTERVAL) => Err(refused(path, "an interval has no form in JSON")),
            (_, ConvertedType::BSON) => Err(refused(path, "it holds BSON, and bytes have no form in JSON")),
            (_, ConvertedType::NONE) if is_bytes => Err(refused(
                path,
                "it holds bytes that are not marked as text, and bytes have no form in JSON",
            )),
            _ => Ok(Shape::Plain),
        }
    }
}

/// Whether a repeated group with one field is an element of its list, as two old writers have it.
fn is_old_element(name: &str) -> bool {
    name == "array" || name.ends_with("_tuple")
}

fn refused(path: &str, why: &str) -> Failure {
    let column = if path.is_empty() { "the file".to_owned() } else { format!("column {path}") };
    Failure::new(Exit::Usage, format!("{column} cannot become JSON: {why}"))
}
