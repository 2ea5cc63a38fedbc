//! How an image is "built": its instructions are read and recorded, the log says what is not done.

use std::collections::HashMap;

use modal_api::wire::{self, generic_result::GenericStatus};

use crate::{
    dockerfile::{assignments, expand, instructions, join_path, unquote},
    images::{Copy, ImageRow},
    mounts,
    rows::Rows,
    secrets,
};

pub(crate) fn build(
    rows: &Rows,
    image: &wire::Image,
    builder_version: String,
    now: f64,
) -> ImageRow {
    let mut row = ImageRow {
        status: GenericStatus::Success.into(),
        base: image
            .base_images
            .first()
            .map(|base| base.image_id.clone())
            .unwrap_or_default(),
        builder_version,
        built_at: now,
        commands: image.dockerfile_commands.clone(),
        ..Default::default()
    };
    let mut arguments = image.build_args.clone();
    for secret_id in &image.secret_ids {
        arguments.extend(secrets::values(rows, secret_id).values);
    }
    for instruction in instructions(&image.dockerfile_commands) {
        if let Err(reason) = step(rows, image, &instruction, &mut arguments, &mut row) {
            row.log.push(format!("error: {reason}"));
            row.set_status(GenericStatus::Failure);
            row.exception = format!("Image build failed at '{instruction}': {reason}");
            return row;
        }
    }
    if image.build_function.is_some() {
        let reason = "functions are not run while an image is built";
        row.log.push(format!("error: {reason}"));
        row.set_status(GenericStatus::Failure);
        row.exception = format!(
            "{reason}: this is modalflow's emulator\nhint: leave run_function out, or do its work when the container starts"
        );
    }
    row
}

fn step(
    rows: &Rows,
    image: &wire::Image,
    instruction: &str,
    arguments: &mut HashMap<String, String>,
    row: &mut ImageRow,
) -> Result<(), String> {
    let (word, rest) = instruction
        .split_once(char::is_whitespace)
        .unwrap_or((instruction, ""));
    let rest = rest.trim();
    row.log.push(format!("=> {instruction}"));
    match word.to_ascii_uppercase().as_str() {
        "FROM" if rest.is_empty() => return Err("FROM needs an image".to_owned()),
        "FROM" if rest != "base" => {
            row.log.push(format!(
                "   {rest} is not pulled: functions run with this machine's files and the emulator's Python"
            ));
        }
        "RUN" if rest.is_empty() => return Err("RUN needs a command".to_owned()),
        "RUN" => row
            .log
            .push("   not run: install what it installs into the emulator's Python".to_owned()),
        "ENV" => {
            // What one instruction sets, its own values do not see.
            let before = row.env.clone();
            for (name, value) in assignments(rest)? {
                row.env.insert(name, expand(&value, &before, arguments));
            }
        }
        "ARG" => {
            if let Some((name, value)) = rest.split_once('=') {
                arguments
                    .entry(name.trim().to_owned())
                    .or_insert_with(|| unquote(value.trim()));
            }
        }
        "WORKDIR" if rest.is_empty() => return Err("WORKDIR needs a path".to_owned()),
        "WORKDIR" => {
            let path = expand(&unquote(rest), &row.env, arguments);
            let before = Some(row.workdir.as_str()).filter(|path| !path.is_empty());
            row.workdir = join_path(before, &path);
        }
        "COPY" | "ADD" => copy(rows, image, rest, row)?,
        "ENTRYPOINT" | "CMD" | "SHELL" | "USER" | "LABEL" | "EXPOSE" | "VOLUME" | "STOPSIGNAL"
        | "HEALTHCHECK" | "ONBUILD" => {
            row.log.push("   recorded, without effect".to_owned());
        }
        "FROM" => {}
        _ => return Err(format!("unknown instruction: {word}")),
    }
    Ok(())
}

fn copy(rows: &Rows, image: &wire::Image, rest: &str, row: &mut ImageRow) -> Result<(), String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let Some((to, sources)) = words
        .split_last()
        .filter(|(_, sources)| !sources.is_empty())
    else {
        return Err("COPY needs a source and a target".to_owned());
    };
    if sources.iter().any(|word| word.starts_with("--")) {
        row.log
            .push("   not copied: options of COPY are not there".to_owned());
        return Ok(());
    }
    for source in sources {
        let from = format!(
            "/{}",
            source.trim_start_matches("./").trim_start_matches('/')
        );
        let from = from.trim_end_matches('.').trim_end_matches('/').to_owned();
        if image.context_mount_id.is_empty() {
            row.log
                .push(format!("   {source} is not copied: it was not uploaded"));
            continue;
        }
        let files = mounts::files(rows, &image.context_mount_id);
        if files.is_empty() {
            row.log.push(format!(
                "   {source} is not copied: Modal's own files are not here"
            ));
            continue;
        }
        let is_there = files
            .iter()
            .any(|file| file.filename == from || file.filename.starts_with(&format!("{from}/")));
        if !is_there {
            return Err(format!("'{source}' is not in the build's context"));
        }
        row.copies.push(Copy {
            mount_id: image.context_mount_id.clone(),
            from,
            to: join_path(
                Some(row.workdir.as_str()).filter(|path| !path.is_empty()),
                to,
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use modal_api::wire::{Image, generic_result::GenericStatus};

    use super::build;
    use crate::{images::ImageRow, rows::Rows};

    fn built(lines: &[&str]) -> ImageRow {
        let image = Image {
            dockerfile_commands: lines.iter().map(|line| (*line).to_owned()).collect(),
            build_args: [("WHO".to_owned(), "me".to_owned())].into(),
            ..Default::default()
        };
        build(&Rows::default(), &image, "2025.06".to_owned(), 1.0)
    }

    #[test]
    fn layers_are_recorded_and_the_log_says_what_is_not_done() {
        let row = built(&[
            "FROM python:3.12-slim",
            "# a comment",
            "RUN pip install \\",
            "    numpy",
            "ENV A=1 B=\"two words\" C=$WHO-${A}",
            "ENV OLD form of it",
            "WORKDIR /srv",
            "WORKDIR app",
        ]);
        assert_eq!(row.status(), GenericStatus::Success);
        let mut env: Vec<_> = row.env.iter().collect();
        env.sort_unstable();
        insta::assert_snapshot!(
            format!("{env:?}\n{}\n{}", row.workdir, row.log.join("\n")),
            @r#"
        [("A", "1"), ("B", "two words"), ("C", "me-"), ("OLD", "form of it")]
        /srv/app
        => FROM python:3.12-slim
           python:3.12-slim is not pulled: functions run with this machine's files and the emulator's Python
        => RUN pip install numpy
           not run: install what it installs into the emulator's Python
        => ENV A=1 B="two words" C=$WHO-${A}
        => ENV OLD form of it
        => WORKDIR /srv
        => WORKDIR app
        "#
        );
    }

    #[test]
    fn what_no_dockerfile_knows_fails_the_build() {
        let row = built(&["FROM base", "RNU make"]);
        assert_eq!(row.status(), GenericStatus::Failure);
        assert_eq!(
            row.log.last().map(String::as_str),
            Some("error: unknown instruction: RNU")
        );
        assert_eq!(built(&["COPY . /x"]).status(), GenericStatus::Success);
        assert_eq!(built(&["COPY x"]).status(), GenericStatus::Failure);
    }
}
