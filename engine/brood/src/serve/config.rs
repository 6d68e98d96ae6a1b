//! What an operator sets for `brood serve`, from TOML.
//!
//! Invariant: a [`Config`] is complete. All mistakes of a file are reported at once, each with its line and the nearest
//! valid key.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brood_front::TenantLabels;
use brood_policy::{Mistakes, read};
use brood_service::engine::UsageOptions;

/// Where the front listens if nobody says: only this host can reach it.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);

/// What an operator sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the front listens.
    pub listen: SocketAddr,
    /// The state directory: the database, disk layers, compiled components.
    pub state: PathBuf,
    /// What Linux machines start from, made by `brood prepare`; without it there are only bare guests.
    pub guest_files: Option<PathBuf>,
    /// The file that binds plugins to hooks; the one that ships if none is named.
    pub policy: Option<PathBuf>,
    /// The directory with the components that it names.
    pub plugins: PathBuf,
    /// The least time that each call of a policy has by the clock, milliseconds, whatever its binding says: for a host that
    /// is slow, such as an emulated one. 0 leaves it to the bindings.
    pub policy_deadline_ms: u32,
    /// The tenant that gets the first key.
    pub tenant: String,
    /// Requests a second of one key, on the long run; twice as many at once. None for what is usual.
    pub key_rate: Option<NonZeroU32>,
    /// The same of all keys of one tenant.
    pub tenant_rate: Option<NonZeroU32>,
    /// How usage is counted and rated.
    pub usage: UsageOptions,
    /// Whether metrics tell tenants apart.
    pub tenant_labels: TenantLabels,
}

impl Config {
    /// Everything as it is if nobody says otherwise.
    pub fn usual(program: &Path) -> Self {
        let plugins = program.parent().map(|parent| parent.join("plugins"));
        Self {
            listen: LISTEN,
            state: state_directory(),
            guest_files: None,
            policy: None,
            plugins: plugins.unwrap_or_else(|| PathBuf::from("plugins")),
            policy_deadline_ms: 0,
            tenant: "default".to_owned(),
            key_rate: None,
            tenant_rate: None,
            usage: UsageOptions::DEFAULT,
            tenant_labels: TenantLabels::default(),
        }
    }

    /// What a file changes of it. Relative paths are relative to the file.
    ///
    /// # Errors
    /// All mistakes of the file.
    pub fn parse(self, file: &Path, text: &str) -> Result<Self, Mistakes> {
        let mut config = self;
        let base = file.parent().unwrap_or(Path::new(""));
        read(
            &file.display().to_string(),
            text,
            "the configuration",
            |root| {
                if let Some((listen, span)) = root.text("listen") {
                    match listen.parse() {
                    Ok(listen) => config.listen = listen,
                    Err(_) => root.mistake(
                        span,
                        format!("'listen' is '{listen}': write an address and a port, as in \"{LISTEN}\""),
                    ),
                }
                }
                let mut path = |key| root.text(key).map(|(path, _)| base.join(path));
                if let Some(state) = path("state") {
                    config.state = state;
                }
                config.guest_files = path("guest-files").or(config.guest_files.take());
                config.policy = path("policy").or(config.policy.take());
                if let Some(plugins) = path("plugins") {
                    config.plugins = plugins;
                }
                root.number(
                    "policy-deadline-ms",
                    0..=600_000,
                    &mut config.policy_deadline_ms,
                );
                if let Some((tenant, _)) = root.text("tenant") {
                    config.tenant = tenant.to_owned();
                }
                let mut rate = |key| {
                    let mut rate = 0_u32;
                    root.number(key, 1..=1_000_000, &mut rate);
                    NonZeroU32::new(rate)
                };
                config.key_rate = rate("key-requests-per-second").or(config.key_rate);
                config.tenant_rate = rate("tenant-requests-per-second").or(config.tenant_rate);
                let mut seconds = |key, usual: Duration| {
                    let mut seconds = u32::try_from(usual.as_secs()).unwrap_or(u32::MAX);
                    root.number(key, 1..=86_400, &mut seconds);
                    Duration::from_secs(seconds.into())
                };
                config.usage.window = seconds("usage-window-seconds", config.usage.window);
                config.usage.rating = seconds("usage-rating-seconds", config.usage.rating);
                let mut days = 0_u32;
                root.number("usage-keep-days", 1..=36_500, &mut days);
                if days > 0 {
                    config.usage.keep = Some(Duration::from_secs(u64::from(days) * 86_400));
                }
                let words = [
                    ("together", TenantLabels::Together),
                    ("apart", TenantLabels::Apart),
                ];
                root.word("metrics-of-tenants", &words, &mut config.tenant_labels);
                config
            },
        )
    }
}

/// Where state is kept by convention: of the system for root, else of the user (XDG Base Directory Specification 0.8).
fn state_directory() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/brood");
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    state
        .or_else(home)
        .unwrap_or_else(|| PathBuf::from("."))
        .join("brood")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Mistakes> {
        Config::usual(Path::new("/opt/brood/brood")).parse(Path::new("/etc/brood/brood.toml"), text)
    }

    #[test]
    fn what_is_not_said_is_as_usual_and_paths_are_relative_to_the_file() {
        let config =
            parse("state = \"state\"\nguest-files = \"/srv/guest\"\nusage-keep-days = 400\n");
        let config = config.expect("reads");
        let keep = Duration::from_secs(400 * 86_400);
        assert_eq!(
            config.usage,
            UsageOptions {
                keep: Some(keep),
                ..UsageOptions::DEFAULT
            }
        );
        assert_eq!(config.listen, LISTEN);
        assert_eq!(config.state, Path::new("/etc/brood/state"));
        assert_eq!(config.guest_files.as_deref(), Some(Path::new("/srv/guest")));
        assert_eq!(config.plugins, Path::new("/opt/brood/plugins"));
    }

    #[test]
    fn all_mistakes_come_at_once_with_their_lines_and_the_nearest_key() {
        let text = "listen = \"everywhere\"\nstat = \"x\"\nplugins = 7\n";
        let mistakes = parse(text).expect_err("three").to_string();
        let lines: Vec<&str> = mistakes.lines().collect();
        assert_eq!(lines.len(), 3, "{mistakes}");
        assert!(
            lines
                .iter()
                .any(|line| line.contains("brood.toml:1:") && line.contains("127.0.0.1:7070"))
        );
        assert!(
            lines
                .iter()
                .any(|line| line.contains("brood.toml:2:") && line.contains("'state'"))
        );
        assert!(
            lines
                .iter()
                .any(|line| line.contains("brood.toml:3:") && line.contains("a string"))
        );
        let broken = parse("listen = ").expect_err("no TOML").to_string();
        assert!(broken.contains("not TOML"), "{broken}");
    }
}
