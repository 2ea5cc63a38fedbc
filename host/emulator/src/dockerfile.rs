//! The lines of a Dockerfile as far as they matter here: instructions, assignments, quotes, variables, paths. Pure.

use std::collections::HashMap;

/// Whole instructions, without comments and line ends.
pub(crate) fn instructions(commands: &[String]) -> Vec<String> {
    let mut whole = Vec::new();
    let mut open = String::new();
    for line in commands.iter().flat_map(|command| command.lines()) {
        let line = line.trim();
        if open.is_empty() && (line.is_empty() || line.starts_with('#')) {
            continue;
        }
        open.push_str(line.trim_end_matches('\\'));
        if line.ends_with('\\') {
            continue;
        }
        whole.push(std::mem::take(&mut open));
    }
    if !open.is_empty() {
        whole.push(open);
    }
    whole
}

/// `A=1 B="two words"`, or the old form `A one value`.
pub(crate) fn assignments(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    if !rest.contains('=') {
        let (name, value) = rest
            .split_once(char::is_whitespace)
            .ok_or("ENV needs a name and a value")?;
        return Ok(vec![(name.to_owned(), unquote(value.trim()))]);
    }
    while !rest.is_empty() {
        let (name, tail) = rest.split_once('=').ok_or("ENV needs names with values")?;
        let mut quote = None;
        let mut is_escaped = false;
        let end = tail.char_indices().find(|(_, letter)| {
            match (quote, *letter) {
                _ if is_escaped => is_escaped = false,
                (_, '\\') => is_escaped = true,
                (Some(open), letter) if letter == open => quote = None,
                (None, '"' | '\'') => quote = Some(*letter),
                (None, letter) if letter.is_whitespace() => return true,
                _ => {}
            }
            false
        });
        let end = end.map_or(tail.len(), |(place, _)| place);
        found.push((name.trim().to_owned(), unquote(&tail[..end])));
        rest = tail[end..].trim_start();
    }
    Ok(found)
}

pub(crate) fn unquote(text: &str) -> String {
    let mut plain = String::new();
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None | Some('"'), '\\') => plain.extend(letters.next()),
            _ => plain.push(letter),
        }
    }
    plain
}

/// `$NAME` and `${NAME}`.
pub(crate) fn expand(
    text: &str,
    env: &HashMap<String, String>,
    arguments: &HashMap<String, String>,
) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(place) = rest.find('$') {
        expanded.push_str(&rest[..place]);
        rest = &rest[place + 1..];
        let inner = rest.strip_prefix('{');
        let name_from = inner.unwrap_or(rest);
        let length = name_from
            .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .unwrap_or(name_from.len());
        let name = &name_from[..length];
        if name.is_empty() {
            expanded.push('$');
            continue;
        }
        if let Some(value) = env.get(name).or_else(|| arguments.get(name)) {
            expanded.push_str(value);
        }
        rest = &name_from[length..];
        if inner.is_some() {
            rest = rest.strip_prefix('}').unwrap_or(rest);
        }
    }
    expanded.push_str(rest);
    expanded
}

pub(crate) fn join_path(before: Option<&str>, path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        let before = before.unwrap_or("/").trim_end_matches('/');
        format!("{before}/{}", path.trim_start_matches("./"))
    }
}
