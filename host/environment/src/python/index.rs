//! The user's pip settings, told to uv in its own words. No index is ever named by us; uv's own settings win.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// pip's settings that matter to uv, by pip's names.
const NAMES: &[&str] = &[
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "cert",
    "trusted-host",
];

/// uv's own variables about where packages come from.
const UVS_OWN: &[&str] = &[
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
    "UV_CONFIG_FILE",
];

/// What uv is told of pip's settings; nothing if the user has told uv something already.
pub(super) fn uv_variables() -> BTreeMap<String, String> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let uv_is_configured = UVS_OWN.iter().any(|name| env(name).is_some())
        || uv_files().iter().any(|path| path.exists());
    let mut settings = BTreeMap::new();
    for path in pip_files() {
        if let Ok(text) = std::fs::read_to_string(path) {
            settings.extend(parse(&text));
        }
    }
    for name in NAMES {
        let variable = format!("PIP_{}", name.replace('-', "_").to_uppercase());
        if let Some(value) = env(&variable) {
            settings.insert((*name).to_owned(), value);
        }
    }
    let mut translated = translate(&settings, |path| path.exists());
    if uv_is_configured {
        translated.retain(|name, _| name == "SSL_CERT_FILE");
    }
    // These are other programs' too, so the user's word stays.
    translated.retain(|name, _| env(name).is_none());
    translated
}

/// pip's words in uv's.
fn translate(
    settings: &BTreeMap<String, String>,
    exists: impl Fn(&Path) -> bool,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, value) in settings {
        let words: Vec<&str> = value.split_whitespace().collect();
        let (variable, value) = match name.as_str() {
            "index-url" => ("UV_DEFAULT_INDEX", value.trim().to_owned()),
            "extra-index-url" => ("UV_INDEX", words.join(" ")),
            "find-links" => {
                // pip only warns of a directory that is not there; for uv it is an error.
                let there: Vec<&str> = words
                    .into_iter()
                    .filter(|word| word.contains("://") || exists(Path::new(word)))
                    .collect();
                ("UV_FIND_LINKS", there.join(","))
            }
            "no-index" if matches!(value.trim(), "1" | "true" | "yes" | "on") => {
                ("UV_NO_INDEX", "1".to_owned())
            }
            "cert" => ("SSL_CERT_FILE", value.trim().to_owned()),
            "trusted-host" => ("UV_INSECURE_HOST", words.join(" ")),
            _ => continue,
        };
        if !value.is_empty() {
            variables.insert(variable.to_owned(), value);
        }
    }
    variables
}

/// Where pip looks, in its order: later ones win.
fn pip_files() -> Vec<PathBuf> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    if let Some(only) = path("PIP_CONFIG_FILE") {
        // pip reads /dev/null as "none at all"; any other file is read after the usual ones.
        if only == Path::new("/dev/null") {
            return Vec::new();
        }
        let mut files = usual_pip_files();
        files.push(only);
        return files;
    }
    usual_pip_files()
}

fn usual_pip_files() -> Vec<PathBuf> {
    let mut files = vec![
        PathBuf::from("/etc/xdg/pip/pip.conf"),
        PathBuf::from("/etc/pip.conf"),
    ];
    let home = std::env::var_os("HOME").map(PathBuf::from);
    if let Some(home) = &home {
        files.push(home.join(".pip/pip.conf"));
    }
    let config = config_home();
    files.extend(config.map(|config| config.join("pip/pip.conf")));
    files
}

fn uv_files() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/uv/uv.toml")];
    files.extend(config_home().map(|config| config.join("uv/uv.toml")));
    files
}

fn config_home() -> Option<PathBuf> {
    std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")))
}

/// The settings of `[global]`, overruled by those of `[install]`.
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut section = String::new();
    let mut by_section: BTreeMap<(bool, String), String> = BTreeMap::new();
    let mut last: Option<(bool, String)> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            // A value's next line.
            if let Some(value) = last.as_ref().and_then(|key| by_section.get_mut(key)) {
                value.push('\n');
                value.push_str(trimmed);
            }
            continue;
        }
        last = None;
        if let Some(name) = trimmed
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name.to_owned();
        } else if let Some((name, value)) = trimmed.split_once(['=', ':'])
            && matches!(section.as_str(), "global" | "install")
        {
            let name = name.trim().to_lowercase().replace('_', "-");
            if NAMES.contains(&name.as_str()) {
                let key = (section == "install", name);
                by_section.insert(key.clone(), value.trim().to_owned());
                last = Some(key);
            }
        }
    }
    by_section
        .into_iter()
        .map(|((_, name), value)| (name, value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names for places stand for URLs, which are not looked at.
    #[test]
    fn pips_settings_reach_uv_in_its_own_words() {
        let [index, extra, ..] = NAMES else {
            unreachable!("the index comes first")
        };
        let underscored = index.replace('-', "_");
        let settings = parse(&format!(
            "
# all of them
[install]
find-links =
    /there/wheels
    /not/there
    file:///elsewhere
[global]
{underscored} = main
{extra} = one
  two
trusted-host: somebody
no-index = no
timeout = 60
[search]
{index} = wrong
"
        ));
        let translated = translate(&settings, |path| path == Path::new("/there/wheels"));
        let lines: Vec<String> = translated.iter().map(|(k, v)| format!("{k}={v}")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        UV_DEFAULT_INDEX=main
        UV_FIND_LINKS=/there/wheels,file:///elsewhere
        UV_INDEX=one two
        UV_INSECURE_HOST=somebody
        ");
    }
}
