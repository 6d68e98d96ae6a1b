//! `brood serve`: the engine, its policies and its database, behind one port.
//!
//! Invariant: nothing is served from a state directory that was not opened whole: a damaged database, a policy file with
//! mistakes or a port that is taken end the start with words. Machines outlive the process, unless an interrupt ends it.

mod config;
mod plugin_state;
mod secret_key;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use brood_front::{Bucket, Options};
use brood_plugin_host::{
    About, Builtins, Host as PluginHost, HostOptions, LogLine, MetricPoint, Observer, Policies,
};
use brood_policy::LogLevel;
use brood_service::engine::{Engine, Token};
use brood_service::host::Host;
use brood_service::path::Panels;
use brood_store::{Store, StoreOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

pub use config::{Config, LISTEN};
use plugin_state::Durable;

use crate::plugin::child::own_compile_options;
use crate::plugin::open::panels;

/// The policy file that ships.
const POLICY: &str = include_str!("../../../../policies/default.toml");

/// An engine with everything that it stands on.
pub struct Opened {
    /// The engine.
    pub engine: Engine,
    // Last: bindings call into it.
    _plugins: PluginHost,
}

/// Opens the state directory, binds the policies and starts an engine.
///
/// # Errors
/// What is wrong with one of them, and what to do.
pub async fn open(config: &Config) -> anyhow::Result<Opened> {
    let store = Store::open(&config.state, &StoreOptions::default())?;
    let (panels, plugins) = bind(config, store.clone())?;
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    // The store's lock says that nobody else is here, so what is left in it was left by one who was killed.
    let run = config.state.join("run");
    if run.exists() {
        fs::remove_dir_all(&run).with_context(|| format!("emptying {}", run.display()))?;
    }
    fs::create_dir(&run).with_context(|| format!("making {}", run.display()))?;
    let host = Host::open(&program, config.guest_files.as_deref(), &run)?;
    let host = host.keeping_snapshots(&config.state.join("snapshots"))?;
    let host = host.supervised(&config.state)?;
    let engine = Engine::open_with(store, host, panels, config.usage).await?;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    engine.unlock_secrets(secret_key::load(&config.state, credentials.as_deref())?)?;
    Ok(Opened {
        engine,
        _plugins: plugins,
    })
}

fn bind(config: &Config, store: Store) -> anyhow::Result<(Panels, PluginHost)> {
    let (name, text) = match &config.policy {
        Some(path) => {
            let name = path.display().to_string();
            let text = fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
            (name, text)
        }
        None => ("the policy that ships".to_owned(), POLICY.to_owned()),
    };
    let mut set = brood_policy::parse(&name, &text)?;
    for binding in &mut set.bindings {
        let limits = &mut binding.limits;
        limits.deadline_ms = limits.deadline_ms.max(config.policy_deadline_ms.into());
    }
    let compile = own_compile_options(Some(config.state.join("compiled")))?;
    let state = Arc::new(Durable(store));
    let host = PluginHost::start(&HostOptions::new(compile), state, Arc::new(Traced))?;
    let policies = Policies::open(&host, &set, &config.plugins, &Builtins::default())?;
    for missing in &policies.missing {
        tracing::error!(plugin = missing.plugin, "{missing}");
    }
    Ok((panels(policies), host))
}

/// What plugins say goes where the engine's own words go.
struct Traced;

impl Observer for Traced {
    fn log(&self, about: &About, lines: &[LogLine]) {
        let (plugin, hook) = (about.plugin.as_str(), about.hook.as_str());
        for line in lines {
            let (message, fields) = (line.message.as_str(), &line.fields);
            match line.level {
                LogLevel::Error => tracing::error!(plugin, hook, ?fields, "{message}"),
                LogLevel::Warn => tracing::warn!(plugin, hook, ?fields, "{message}"),
                LogLevel::Info => tracing::info!(plugin, hook, ?fields, "{message}"),
                LogLevel::Debug => tracing::debug!(plugin, hook, ?fields, "{message}"),
                LogLevel::Trace => tracing::trace!(plugin, hook, ?fields, "{message}"),
            }
        }
    }

    fn measure(&self, _: &About, _: &[MetricPoint]) {}
}

/// Serves until a signal says to stop; the first key goes to standard output, once, if the engine has none yet.
///
/// # Errors
/// What is wrong with the state directory, the policies, the host or the port.
pub fn run(config: &Config) -> anyhow::Result<()> {
    // Who has asked for a subscriber of their own keeps it.
    tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_writer(std::io::stderr)
        .try_init()
        .ok();
    let runtime = tokio::runtime::Runtime::new().context("starting the threads that serve")?;
    runtime.block_on(serve(config))
}

fn filter() -> EnvFilter {
    let usual = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    usual.from_env_lossy()
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "cannot listen on {}: another program has the port, or the address is not this host's",
            config.listen
        )
    })?;
    let opened = open(config).await?;
    let engine = opened.engine.clone();
    let address = listener.local_addr()?;
    let show = |token: &Token| println!("{}", token.reveal());
    if engine.first_key(&config.tenant, show).await?.is_some() {
        tracing::info!(
            tenant = config.tenant,
            "the first key is on standard output; it is shown this once"
        );
    }
    tracing::info!(%address, state = %config.state.display(), "serving");
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    // Who sits before it and interrupts it is done with it; a manager of services that terminates it starts it again.
    let ends_machines = Arc::new(AtomicBool::new(false));
    let decided = Arc::clone(&ends_machines);
    let stop = async move {
        tokio::select! {
            _ = interrupted.recv() => decided.store(true, Ordering::Relaxed),
            _ = terminated.recv() => {}
        }
        tracing::info!("stopping: requests that run are answered first");
    };
    brood_front::serve(listener, engine.clone(), options(config), stop).await?;
    if ends_machines.load(Ordering::Relaxed) {
        engine.close().await?;
        tracing::info!("stopped; all machines were ended");
    } else {
        let machines = engine.leave()?;
        tracing::info!(
            machines,
            "stopped; machines go on, and the next start takes them over"
        );
    }
    Ok(())
}

fn options(config: &Config) -> Options {
    let usual = Options::default();
    let bucket = |rate: Option<_>, usual| rate.map_or(usual, Bucket::per_second);
    Options {
        key_rate: bucket(config.key_rate, usual.key_rate),
        tenant_rate: bucket(config.tenant_rate, usual.tenant_rate),
        tenant_labels: config.tenant_labels,
        ..usual
    }
}

/// Reads a configuration file over the usual.
///
/// # Errors
/// It cannot be read, or all its mistakes.
pub fn configure(file: Option<&Path>) -> anyhow::Result<Config> {
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let usual = Config::usual(&program);
    let Some(file) = file else {
        return Ok(usual);
    };
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(usual.parse(file, &text)?)
}
