//! Listings: the same rows as a table, JSON, YAML or plain columns.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use chrono::{DateTime, Utc};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use super::arguments::Format;

/// A column of the table: its header and the field of the row it shows.
pub(super) type Column = (&'static str, &'static str);

/// Prints rows. Table and plain show the columns; JSON and YAML show every field.
pub(super) fn listing<T: Serialize>(
    rows: &[T],
    columns: &[Column],
    format: Format,
) -> anyhow::Result<()> {
    let rows: Vec<Value> = rows
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()
        .context("print the rows")?;
    let text = match format {
        Format::Json => json(&Value::Array(rows))?,
        Format::Yaml => yaml(&Value::Array(rows))?,
        Format::Plain => plain(&rows, columns),
        Format::Table => table(&rows, columns),
    };
    print(&text)
}

/// Prints one object; as a table a line for each field.
pub(super) fn object<T: Serialize>(value: &T, format: Format) -> anyhow::Result<()> {
    let value = serde_json::to_value(value).context("print the answer")?;
    let fields = value.as_object().cloned().unwrap_or_default();
    let text = match format {
        Format::Json => json(&value)?,
        Format::Yaml => yaml(&value)?,
        Format::Plain => fields
            .iter()
            .map(|(name, field)| format!("{name}\t{}\n", cell(field)))
            .collect(),
        Format::Table => {
            let width = fields.keys().map(String::len).max().unwrap_or(0);
            fields
                .iter()
                .map(|(name, field)| format!("{name:width$}  {}\n", cell(field)))
                .collect()
        }
    };
    print(&text)
}

/// Writes to stdout; a reader that went away (`| head`) is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to stdout"),
    }
}

fn json(value: &Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value).context("print JSON")? + "\n")
}

fn yaml(value: &Value) -> anyhow::Result<String> {
    let text = serde_saphyr::to_string(value).context("print YAML")?;
    Ok(if text.ends_with('\n') {
        text
    } else {
        text + "\n"
    })
}

fn plain(rows: &[Value], columns: &[Column]) -> String {
    let line = |row: &Value| {
        let cells: Vec<String> = columns
            .iter()
            .map(|(_, field)| cell(&row[*field]))
            .collect();
        cells.join("\t") + "\n"
    };
    rows.iter().map(line).collect()
}

fn table(rows: &[Value], columns: &[Column]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // Wrapped cells can't be searched: only a terminal gets them.
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(columns.iter().map(|(header, _)| *header));
    for row in rows {
        table.add_row(columns.iter().map(|(_, field)| cell(&row[*field])));
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A value in a table: control characters shown, so that an id can't draw on the terminal.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{float:.3}"),
            _ => number.to_string(),
        },
        Value::String(text) => moment(text).unwrap_or_else(|| text.clone()),
        other => other.to_string(),
    };
    if text.chars().any(char::is_control) {
        text.escape_debug().to_string()
    } else {
        text
    }
}

/// Times of the database in the form that people read, to the second and in UTC.
fn moment(text: &str) -> Option<String> {
    let at: DateTime<Utc> = text.ends_with('Z').then(|| text.parse().ok()).flatten()?;
    Some(at.format("%Y-%m-%d %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{plain, table};

    #[test]
    fn a_table_shows_columns_and_escapes_control_characters() {
        let rows = [
            json!({"id": "a", "at": "2026-01-31T12:00:00.123456Z", "n": 1.5, "gone": null}),
            json!({"id": "b\u{1b}[2J", "at": null, "n": 12, "gone": true}),
        ];
        let columns = [("ID", "id"), ("AT", "at"), ("N", "n"), ("GONE", "gone")];
        insta::assert_snapshot!(table(&rows, &columns) + &plain(&rows, &columns), @r"
         ID          AT                   N      GONE
         a           2026-01-31 12:00:00  1.500  -
         b\u{1b}[2J  -                    12     yes
        a	2026-01-31 12:00:00	1.500	-
        b\u{1b}[2J	-	12	yes
        ");
    }
}
