//! Finds numbers in JSON that a program could not hold exactly: integers beyond 64 bits with sign,
//! and decimals that a 64-bit float turns into another decimal.

/// The first number of a JSON text that neither an `i64` nor an `f64` holds exactly.
pub(super) fn first_inexact(json: &[u8]) -> Option<&str> {
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'"' => at = string_end(json, at),
            b'-' | b'0'..=b'9' => {
                let end = number_end(json, at);
                let number = std::str::from_utf8(&json[at..end]).unwrap_or("number");
                if !is_exact(number) {
                    return Some(number);
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    None
}

/// The index behind the string that begins at `at`.
fn string_end(json: &[u8], mut at: usize) -> usize {
    at += 1;
    while at < json.len() {
        match json[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

fn number_end(json: &[u8], at: usize) -> usize {
    let belongs = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    at + json[at..].iter().take_while(|byte| belongs(byte)).count()
}

fn is_exact(number: &str) -> bool {
    let is_integer = number.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
    if is_integer {
        return number.len() <= 18 || number.parse::<i64>().is_ok();
    }
    if number.len() <= 16 && !number.contains(['e', 'E']) {
        return true;
    }
    let Ok(float) = number.parse::<f64>() else { return false };
    float.is_finite() && decimal(number) == decimal(&format!("{float:e}"))
}

/// A number's digits without zeros at either end, and the power of ten of its last digit.
fn decimal(number: &str) -> (String, i64) {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i64 = exponent.trim_start_matches('+').parse().unwrap_or(i64::MAX / 2);
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return (String::new(), 0);
    }
    let dropped = digits.len() - significant.len();
    (significant.to_owned(), exponent - fraction.len() as i64 + dropped as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_fit_are_exact() {
        for number in [
            "0",
            "-0",
            "9223372036854775807",
            "-9223372036854775808",
            "0.1",
            "1e5",
            "1.50",
            "1E+2",
            "-2.5e-3",
            "0.30000000000000004",
            "1.7976931348623157e308",
            "100000000000000000000000.0",
            "0.0e99999",
            "5e-324",
        ] {
            assert_eq!(first_inexact(number.as_bytes()), None, "{number}");
        }
    }

    #[test]
    fn numbers_that_would_change_are_found() {
        for number in [
            "9223372036854775808",
            "-9223372036854775809",
            "1e400",
            "-1e400",
            "0.1000000000000000055511151231257827",
            "9007199254740993.0",
            "1e-400",
            "123456789012345678901234567890",
        ] {
            let event = format!(r#"{{"text":"1e999 \" 1e999","n":[1,{number}]}}"#);
            assert_eq!(first_inexact(event.as_bytes()), Some(number));
        }
    }
}
