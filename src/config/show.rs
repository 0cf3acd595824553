//! Prints the configuration in force: one TOML line a key, with where it came from.

use std::fmt::Write as _;

use super::load::Loaded;

impl Loaded {
    /// Every key that has a value, as TOML that can be read back, apart from secrets.
    pub(crate) fn show(&self) -> String {
        let table = toml::Table::try_from(&self.config)
            .expect("the configuration holds texts, numbers and maps only");
        let mut lines = Vec::new();
        flatten(&table, &mut Vec::new(), &mut lines);
        let width = lines.iter().map(|(_, line)| line.len()).filter(|width| *width <= 60).max().unwrap_or(0);
        let mut text = String::new();
        for (key, line) in lines {
            let origin = self.origins.get(&key).map_or("default", String::as_str);
            writeln!(text, "{line:width$}  # {origin}").expect("a String takes every line");
        }
        text
    }
}

/// Collects `(path, line)` of every leaf.
fn flatten(table: &toml::Table, path: &mut Vec<String>, lines: &mut Vec<(String, String)>) {
    for (key, value) in table {
        path.push(key.clone());
        match value {
            toml::Value::Table(inner) => flatten(inner, path, lines),
            value => {
                let quoted: Vec<String> = path.iter().map(|part| quote(part)).collect();
                lines.push((path.join("."), format!("{} = {value}", quoted.join("."))));
            }
        }
        path.pop();
    }
}

fn quote(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
    if bare { key.to_owned() } else { toml::Value::from(key).to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Overrides, load};

    #[test]
    fn what_is_shown_reads_back_as_the_same_configuration() {
        let mut overrides = Overrides::default();
        overrides.set("--set", "kafka.properties.linger.ms", Some("5"));
        overrides.set("--log", "log", Some("kafka"));
        let loaded = load(&overrides).unwrap();
        let shown = loaded.show();
        assert!(shown.contains("kafka.properties.\"linger.ms\" = \"5\""), "{shown}");
        assert!(shown.lines().any(|line| line.starts_with("log = \"kafka\"") && line.ends_with("# --log")));
        assert_eq!(toml::from_str::<Config>(&shown).unwrap(), loaded.config);
    }
}
