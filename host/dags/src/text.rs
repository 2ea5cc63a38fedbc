//! Text that comes from outside, made fit for a row of the database and a terminal.

/// The longest import-error text.
pub(crate) const ERROR_BYTES: usize = 64 << 10;

/// Without NUL (which Postgres refuses), and at most about `limit` bytes: head and tail, with what is left out said.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    let text = text.replace('\0', "\\0");
    if text.len() <= limit {
        return text;
    }
    let head = floor(&text, limit / 4);
    let tail = ceiling(&text, text.len() - limit / 4 * 3);
    format!(
        "{}\n... ({} bytes left out) ...\n{}",
        &text[..head],
        tail - head,
        &text[tail..]
    )
}

/// A name as it may be shown and stored: control characters escaped, not longer than Airflow's column.
pub(crate) fn name(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || character == char::REPLACEMENT_CHARACTER {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    if shown.chars().count() > 1000 {
        shown = shown.chars().take(1000).collect();
        shown.push('…');
    }
    shown
}

/// The last `lines` lines that say something.
pub(crate) fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn ceiling(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_keeps_its_ends() {
        let text = format!("first\0 {}ü last", "ä".repeat(100));
        insta::assert_snapshot!(cut(&text, 40), @r#"
        first\0 ä
        ... (176 bytes left out) ...
        äääääääääääü last
        "#);
    }

    #[test]
    fn names_show_their_control_characters() {
        insta::assert_snapshot!(name("a\nb\u{1b}[31m\u{fffd}.py"), @r#"a\nb\u{1b}[31m\u{fffd}.py"#);
    }
}
