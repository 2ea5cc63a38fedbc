//! Which server, which token, which environment: read from where Modal's own client reads them, in its order.
//!
//! A variable counts before the profile, the profile before the default. The one room here that reads a file and variables.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    CLIENT_VERSION, Credentials, Error, ServerUrl,
    profiles::{Settings, chosen, profiles, wrong},
};

// modal: DEFAULT_SERVER_URL
const DEFAULT_SERVERS: &str = "https://api.modal.com,https://api.modal2.com";
/// Our own variable: the version of the official client that we claim to be.
pub const CLIENT_VERSION_VARIABLE: &str = "MODALFLOW_MODAL_CLIENT_VERSION";

/// Where to connect and as whom. `Debug` keeps the secret out.
#[derive(Debug, Clone)]
pub struct Config {
    /// In order of preference.
    pub servers: Vec<ServerUrl>,
    /// With the token, if there is one.
    pub credentials: Credentials,
    /// Empty: the workspace's default environment.
    pub environment: String,
    /// The table of the file that was read, whether or not it exists.
    pub profile: String,
    /// Overrides the environment's version of the image builder.
    pub image_builder_version: Option<String>,
    /// How long a server may put a call off; none: without limit, zero: not at all.
    pub max_throttle_wait: Option<Duration>,
    /// Build images although they exist.
    pub force_build: bool,
    /// Build images although they exist, without replacing those.
    pub ignore_cache: bool,
}

impl Config {
    /// Reads `~/.modal.toml` (or the file that `MODAL_CONFIG_PATH` names) and the variables `MODAL_*`.
    pub fn load() -> Result<Self, Error> {
        let variable = |name: &str| std::env::var(name).ok();
        let path = match variable("MODAL_CONFIG_PATH").filter(|path| !path.is_empty()) {
            Some(path) => Some(PathBuf::from(path)),
            None => std::env::home_dir().map(|home| home.join(".modal.toml")),
        };
        let remote = variable("MODAL_IS_REMOTE").as_deref() == Some("1");
        let text = match &path {
            Some(path) if !remote && path.exists() => {
                Some(std::fs::read_to_string(path).map_err(|source| Error::File {
                    path: path.display().to_string(),
                    source,
                })?)
            }
            _ => None,
        };
        let path = path.unwrap_or_default();
        Self::read(&path, text.as_deref(), &variable)
    }

    /// The same from a file's text and a way to look variables up.
    ///
    /// # Errors
    /// [`Error::Config`] says which setting of which file or which variable is wrong.
    pub fn read(
        path: &Path,
        text: Option<&str>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let profiles = profiles(path, text.unwrap_or_default())?;
        let profile = chosen(path, &profiles, variable("MODAL_PROFILE"))?;
        let settings = Settings {
            table: profiles.get(&profile),
            variable,
        };
        let servers = ServerUrl::list(
            &settings
                .text("server_url")
                .unwrap_or_else(|| DEFAULT_SERVERS.to_owned()),
        )?;
        let credentials = if variable("MODAL_IS_REMOTE").as_deref() == Some("1") {
            Credentials::container()
        } else {
            settings.credentials(&profiles, &profile, path)?
        };
        let version =
            variable(CLIENT_VERSION_VARIABLE).unwrap_or_else(|| CLIENT_VERSION.to_owned());
        if version.is_empty() || !version.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(wrong(
                CLIENT_VERSION_VARIABLE,
                &version,
                "a version as 1.6.4",
            ));
        }
        let environment = settings.text("environment").unwrap_or_default();
        crate::names::environment(&environment)?;
        Ok(Self {
            servers,
            credentials: credentials.claiming(version),
            environment,
            image_builder_version: settings
                .text("image_builder_version")
                .filter(|version| !version.is_empty()),
            max_throttle_wait: settings.seconds("max_throttle_wait")?,
            force_build: settings.switch("force_build"),
            ignore_cache: settings.switch("ignore_cache"),
            profile,
        })
    }

    /// A server on this machine, without file and variables.
    #[must_use]
    pub fn at(url: ServerUrl, credentials: Credentials) -> Self {
        Self {
            servers: vec![url],
            credentials,
            environment: String::new(),
            profile: String::new(),
            image_builder_version: None,
            max_throttle_wait: None,
            force_build: false,
            ignore_cache: false,
        }
    }

    /// The servers as one would write them.
    #[must_use]
    pub fn server_list(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        servers.join(",")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Config;

    const FILE: &str = r#"
[work]
token_id = "ak-work"
token_secret = "as-work"
environment = "dev"
active = true
[home]
token_id = "ak-home"
token_secret = "as-home"
server_url = "http://127.0.0.1:1"
max_throttle_wait = 30
"#;

    fn check(file: &str, variables: &[(&str, &str)]) -> String {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        match Config::read(Path::new("modal.toml"), Some(file), &variable) {
            Ok(config) => format!(
                "{} as {:?} {} in '{}' of {}, throttled {:?}",
                config.server_list(),
                config.credentials.token.map(|(id, _)| id),
                config.credentials.client_version,
                config.environment,
                config.profile,
                config.max_throttle_wait,
            ),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn variables_count_before_the_profile_and_the_profile_before_defaults() {
        let cases = [
            check("", &[]),
            check(FILE, &[]),
            check(FILE, &[("MODAL_PROFILE", "home")]),
            check(
                FILE,
                &[
                    ("MODAL_TOKEN_ID", "ak-env"),
                    ("MODAL_TOKEN_SECRET", "as-env"),
                    ("MODAL_SERVER_URL", "https://a, unix:///b"),
                    ("MODAL_ENVIRONMENT", "prod"),
                    ("MODAL_MAX_THROTTLE_WAIT", "0"),
                    ("MODALFLOW_MODAL_CLIENT_VERSION", "2.0.0"),
                ],
            ),
            check(FILE, &[("MODAL_IS_REMOTE", "1")]),
        ];
        insta::assert_snapshot!(cases.join("\n"), @r#"
        https://api.modal.com,https://api.modal2.com as None 1.6.4 in '' of default, throttled None
        https://api.modal.com,https://api.modal2.com as Some("ak-work") 1.6.4 in 'dev' of work, throttled None
        http://127.0.0.1:1 as Some("ak-home") 1.6.4 in '' of home, throttled Some(30s)
        https://a,unix:///b as Some("ak-env") 2.0.0 in 'prod' of work, throttled Some(0ns)
        https://api.modal.com,https://api.modal2.com as None 1.6.4 in 'dev' of work, throttled None
        "#);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_way_to_mend_it() {
        let two = FILE.replace("[home]", "[home]\nactive = true");
        let none = FILE.replace("active = true", "");
        let cases = [
            check(&two, &[]),
            check(&none, &[]),
            check("token_id = 1", &[]),
            check("[a", &[]),
            check(FILE, &[("MODAL_PROFILE", "away")]),
            check("", &[("MODAL_TOKEN_ID", "ak-env")]),
            check("", &[("MODAL_OAUTH_CLIENT_ID", "x")]),
            check("", &[("MODAL_MAX_THROTTLE_WAIT", "soon")]),
            check("", &[("MODAL_ENVIRONMENT", "en-a")]),
            check("", &[("MODAL_SERVER_URL", "ftp://a")]),
            check("", &[("MODALFLOW_MODAL_CLIENT_VERSION", "new")]),
        ];
        insta::assert_snapshot!(cases.join("\n"), @r#"
        modal.toml: more than one profile is active
        hint: run `modal profile activate NAME`, or set MODAL_PROFILE
        modal.toml: no profile is active
        hint: run `modal profile activate NAME`, or set MODAL_PROFILE
        modal.toml: 'token_id' stands outside of a profile
        hint: each profile is a table, as [default]
        modal.toml: unclosed table, expected `]`
        modal.toml has no profile 'away'
        hint: `modal profile list` shows the profiles, `modal token new --profile away` makes it
        half a token: token_secret is missing in profile 'default'
        hint: set both MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run `modal token new`
        'oauth_client_id' is set, and signing in by OAuth is not supported
        hint: use a token: `modal token new`
        setting max_throttle_wait is 'soon'; expected is a whole number of seconds
        environment name 'en-a' cannot be used
        hint: 1 to 64 letters, digits, dashes, underscores and dots, a letter or digit first, not starting with en-
        server address 'ftp://a' cannot be used: the scheme is neither https nor http nor unix
        hint: write https://host, http://127.0.0.1:port or unix:///path/to.sock; several, with commas between them, are tried in turn
        setting MODALFLOW_MODAL_CLIENT_VERSION is 'new'; expected is a version as 1.6.4
        "#);
    }
}
