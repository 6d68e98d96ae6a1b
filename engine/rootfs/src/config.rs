//! What an image says about running it (image-spec, config.md), as a value.
//!
//! Invariant: what is here can be handed to a guest as it is: names of variables are names, the directory is absolute, ports are
//! numbers. A key that means nothing here (healthchecks, volumes, build history) is left out.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Deserialize;

use crate::digest::Digest;

/// An image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Variables, in the image's order.
    pub env: Vec<(String, String)>,
    /// Where programs start. Default: `/`.
    pub working_dir: Option<String>,
    /// As whom: a name or number, with `:` and a group if the image says one. Default: root.
    pub user: Option<String>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// The rest of the arguments, or the program if there is no entrypoint.
    pub cmd: Vec<String>,
    /// Ports that the program listens at.
    pub exposed_ports: Vec<Port>,
    /// What its makers wrote on it.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the program to stop, for instance `SIGTERM` or `15`.
    pub stop_signal: Option<String>,
}

/// A port with its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Of what.
    pub protocol: Protocol,
}

/// What a port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No JSON of this shape.
    #[error("the image's configuration is not what it should be")]
    Json(#[from] serde_json::Error),
    /// For another machine.
    #[error(
        "the image is for {os}/{architecture}, and guests are linux/amd64: name an image for that"
    )]
    Platform {
        /// Its system.
        os: String,
        /// Its CPU.
        architecture: String,
    },
    /// A field that means nothing.
    #[error("the image's configuration has {field} '{value}': {wanted}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        wanted: &'static str,
    },
    /// Another number of layers than the manifest has.
    #[error(
        "the image's configuration names {named} layers and its manifest {layers}: the image is broken"
    )]
    Layers {
        /// In the configuration.
        named: usize,
        /// In the manifest.
        layers: usize,
    },
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<Config>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// Go writes `null` for what is empty.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

impl ImageConfig {
    /// Parses a configuration file; also gives the digests of the layers before they were packed, the lowest first.
    ///
    /// # Errors
    /// [`ConfigError`], without the number of layers.
    pub fn parse(json: &[u8]) -> Result<(Self, Vec<Digest>), ConfigError> {
        let file: File = serde_json::from_slice(json)?;
        let of_guests = |says: &str, wanted: &str| says.is_empty() || says == wanted;
        if !of_guests(&file.os, "linux") || !of_guests(&file.architecture, "amd64") {
            return Err(ConfigError::Platform {
                os: file.os,
                architecture: file.architecture,
            });
        }
        let field = |field, value: &str, wanted| ConfigError::Field {
            field,
            value: value.chars().take(200).collect(),
            wanted,
        };
        let diff_ids = file.rootfs.diff_ids.iter().map(|id| {
            let wanted = "a diff_id is sha256: and 64 digits";
            id.parse().map_err(|_| field("diff_id", id, wanted))
        });
        let diff_ids = diff_ids.collect::<Result<_, _>>()?;
        let config = file.config.unwrap_or_default();
        let env = config.env.unwrap_or_default();
        let env = env.iter().map(|variable| {
            let wanted = "a variable is NAME=VALUE";
            pair(variable).ok_or_else(|| field("Env", variable, wanted))
        });
        let working_dir = config.working_dir.filter(|path| !path.is_empty());
        if let Some(path) = &working_dir
            && (!path.starts_with('/') || path.contains('\0'))
        {
            let wanted = "a working directory begins with '/'";
            return Err(field("WorkingDir", path, wanted));
        }
        let ports = config.exposed_ports.unwrap_or_default();
        let mut exposed_ports = Vec::new();
        for text in ports.keys() {
            let wanted = "a port is NUMBER, NUMBER/PROTOCOL or FIRST-LAST/PROTOCOL";
            let range = ports_of(text).ok_or_else(|| field("ExposedPorts", text, wanted))?;
            exposed_ports.extend(range);
        }
        exposed_ports.sort();
        exposed_ports.dedup();
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        let parsed = Self {
            env: env.collect::<Result<_, _>>()?,
            working_dir,
            user: said(config.user),
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            exposed_ports,
            labels: config.labels.unwrap_or_default(),
            stop_signal: said(config.stop_signal),
        };
        Ok((parsed, diff_ids))
    }

    /// The command line of the image's own program; empty if it has none.
    pub fn argv(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.cmd).cloned().collect()
    }
}

fn pair(variable: &str) -> Option<(String, String)> {
    let (name, value) = variable.split_once('=')?;
    let whole = !name.is_empty() && !variable.contains('\0');
    whole.then(|| (name.to_owned(), value.to_owned()))
}

fn ports_of(text: &str) -> Option<impl Iterator<Item = Port> + use<>> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    let protocol: Protocol = protocol.parse().ok()?;
    let ports = (first..=last).map(move |number| Port { number, protocol });
    (first > 0 && first <= last).then_some(ports)
}

impl FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: &str) -> Result<ImageConfig, ConfigError> {
        let json = format!(
            r#"{{"architecture": "amd64", "os": "linux", "config": {config}, "rootfs": {{"type": "layers", "diff_ids": []}}}}"#
        );
        ImageConfig::parse(json.as_bytes()).map(|(config, _)| config)
    }

    #[test]
    fn what_docker_writes_is_read() {
        let config = parse(
            r#"{"User": "ann:staff", "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000-8001": {}},
                "Env": ["PATH=/bin:/usr/bin", "EMPTY=", "EQ=a=b"], "Entrypoint": ["/entry"], "Cmd": ["serve", "now"],
                "WorkingDir": "/app", "Labels": {"a": "b"}, "StopSignal": "SIGINT", "Healthcheck": {"Test": ["NONE"]}}"#,
        )
        .expect("a configuration");
        assert_eq!(config.user.as_deref(), Some("ann:staff"));
        let env: Vec<_> = config
            .env
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            env,
            [("PATH", "/bin:/usr/bin"), ("EMPTY", ""), ("EQ", "a=b")]
        );
        assert_eq!(config.argv(), ["/entry", "serve", "now"]);
        let ports: Vec<_> = config
            .exposed_ports
            .iter()
            .map(|port| port.number)
            .collect();
        assert_eq!(ports, [53, 80, 8000, 8001]);
        assert_eq!(config.labels.get("a").map(String::as_str), Some("b"));
    }

    #[test]
    fn nothing_and_null_are_defaults() {
        for config in [
            "null",
            "{}",
            r#"{"Env": null, "Cmd": null, "User": "", "WorkingDir": ""}"#,
        ] {
            assert_eq!(
                parse(config).expect("empty"),
                ImageConfig::default(),
                "{config}"
            );
        }
    }

    #[test]
    fn field_that_means_nothing_is_named_with_what_it_may_be() {
        for (config, word) in [
            (r#"{"Env": ["NOVALUE"]}"#, "NOVALUE"),
            (r#"{"Env": ["=x"]}"#, "NAME=VALUE"),
            (r#"{"WorkingDir": "app"}"#, "begins with '/'"),
            (r#"{"ExposedPorts": {"0/tcp": {}}}"#, "0/tcp"),
            (r#"{"ExposedPorts": {"9-8/tcp": {}}}"#, "9-8/tcp"),
            (r#"{"ExposedPorts": {"80/xyz": {}}}"#, "80/xyz"),
        ] {
            let said = parse(config).expect_err(config).to_string();
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn image_of_another_machine_is_refused_by_its_name() {
        let json = br#"{"architecture": "arm64", "os": "linux", "rootfs": {"diff_ids": []}}"#;
        let said = ImageConfig::parse(json).expect_err("arm64").to_string();
        assert!(
            said.contains("linux/arm64") && said.contains("linux/amd64"),
            "{said}"
        );
    }
}
