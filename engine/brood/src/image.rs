//! `brood image`: images in a store of this host, and guest files that boot one.
//!
//! Invariant: it works on a directory that is named, as whoever runs it; no server is asked, and nothing of an image runs here.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use brood_agent_proto::exec::ProgramDefaults;
use brood_rootfs::{
    Credentials, DiskOptions, Image, ImageConfig, Limits, PlainHttp, Progress, RefKind, Reference,
    Registry, RegistryOptions, Session, Source, Store, Users,
};
use brood_service::files::{COMMAND_LINE, DEFAULTS};
use clap::{Args, Subcommand};

/// Where the root disk of a guest is, for its agent.
const ROOT: &str = "brood.root=/dev/vda";

/// `brood image`
#[derive(Subcommand)]
pub enum Command {
    /// Fetch an image from a registry.
    Pull {
        #[command(flatten)]
        place: Place,
        /// [HOST[:PORT]/]NAME[:TAG][@DIGEST]
        reference: String,
        /// A config.json of docker, for its logins.
        #[arg(long, value_name = "FILE")]
        docker_config: Option<PathBuf>,
        /// Ask without TLS, which only this host's own registries are asked without otherwise.
        #[arg(long)]
        plain_http: bool,
    },
    /// Take an image of this host in.
    Import {
        #[command(flatten)]
        place: Place,
        /// oci:DIRECTORY[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], tar:FILE or dir:DIRECTORY
        source: String,
        /// What it is to be called here.
        name: String,
    },
    /// List the images.
    Ls {
        #[command(flatten)]
        place: Place,
    },
    /// Take an image's name away.
    Rm {
        #[command(flatten)]
        place: Place,
        /// Its name, as `ls` shows it.
        name: String,
    },
    /// Remove what no name leads to.
    Collect {
        #[command(flatten)]
        place: Place,
    },
    /// Make guest files whose root is an image, for `brood up --files`.
    Files {
        #[command(flatten)]
        place: Place,
        /// Its name, as `ls` shows it.
        name: String,
        /// Guest files that `brood prepare` made, for their kernel and initramfs.
        #[arg(long, value_name = "DIR")]
        of: PathBuf,
        /// The directory to make them in.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// MiB that are free on the disk.
        #[arg(long, value_name = "MIB", default_value_t = 1024)]
        free: u32,
    },
}

/// Which store.
#[derive(Args)]
pub struct Place {
    /// The directory of the store, which is made.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
}

impl Place {
    fn open(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&self.store, Limits::default())?)
    }
}

/// Does what was asked.
///
/// # Errors
/// It cannot be done; nothing is left half done.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Pull {
            place,
            reference,
            docker_config,
            plain_http,
        } => {
            let reference: Reference = reference.parse()?;
            let credentials = docker_config.as_deref().map(Credentials::of_docker);
            let registry = Registry::new(RegistryOptions {
                credentials: credentials.transpose()?.unwrap_or_default(),
                plain_http: if plain_http {
                    PlainHttp::Asked
                } else {
                    PlainHttp::Local
                },
                proxy: proxy(),
                ..RegistryOptions::default()
            })?;
            let session = place.open()?.begin()?;
            let image = session.pull(&registry, &reference, show)?;
            named(&session, &reference.to_string(), &image)
        }
        Command::Import {
            place,
            source,
            name,
        } => {
            let source: Source = source.parse()?;
            let session = place.open()?.begin()?;
            let image = session.import(&source)?;
            named(&session, &name, &image)
        }
        Command::Ls { place } => list(&place.open()?),
        Command::Rm { place, name } => {
            let removed = place.open()?.forget(RefKind::Image, &name)?;
            anyhow::ensure!(removed, "nothing is called '{name}' in the store");
            Ok(())
        }
        Command::Collect { place } => {
            let removed = place.open()?.collect()?;
            println!(
                "removed {} blobs and {} disks, {} bytes",
                removed.blobs, removed.disks, removed.bytes
            );
            Ok(())
        }
        Command::Files {
            place,
            name,
            of,
            out,
            free,
        } => files(&place.open()?, &name, (&of, &out), u64::from(free) << 20),
    }
}

/// As curl(1) has it.
fn proxy() -> Option<String> {
    let named = ["https_proxy", "HTTPS_PROXY"].map(|name| std::env::var(name).ok());
    named.into_iter().flatten().find(|proxy| !proxy.is_empty())
}

fn named(session: &Session, name: &str, image: &Image) -> anyhow::Result<()> {
    session.name(RefKind::Image, name, image.manifest)?;
    println!("{name} {}", image.manifest);
    Ok(())
}

/// How far it is, on a line of a terminal that is written over.
fn show(progress: Progress) {
    let mut error = std::io::stderr();
    if !error.is_terminal() {
        return;
    }
    let Progress::Fetched { digest, have, size } = progress else {
        return;
    };
    let end = if have >= size { "\n" } else { "\r" };
    let short = digest.hex().chars().take(12).collect::<String>();
    let line = format!("{short} {} of {} KiB{end}", have >> 10, size >> 10);
    // A terminal that is gone wants to see nothing.
    error.write_all(line.as_bytes()).unwrap_or_default();
}

fn list(store: &Store) -> anyhow::Result<()> {
    for named in store.names(RefKind::Image)? {
        let image = store.image(&named.target)?;
        let bytes: u64 = image.layers.iter().map(|layer| layer.size).sum();
        println!("{} {} {} MiB packed", named.name, named.target, bytes >> 20);
    }
    Ok(())
}

fn files(store: &Store, name: &str, (of, out): (&Path, &Path), free: u64) -> anyhow::Result<()> {
    let session = store.begin()?;
    let image = store.image(&store.named(RefKind::Image, name)?)?;
    let disk = session.disk(&image, DiskOptions { free })?;
    let users = Users::of(&disk)?;
    if let Some(user) = &image.config.user {
        users.resolve(user)?;
    }
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    for file in ["vmlinux", "initramfs"] {
        let (from, to) = (of.join(file), out.join(file));
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let to = out.join("disk.ext4");
    if to.exists() {
        fs::remove_file(&to).with_context(|| format!("cannot replace {}", to.display()))?;
    }
    // The same file under one more name, where both are on one file system.
    if fs::hard_link(&disk.path, &to).is_err() {
        fs::copy(&disk.path, &to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    let defaults = serde_json::to_vec_pretty(&defaults(&image.config)?)?;
    for (file, bytes) in [
        (DEFAULTS, defaults.as_slice()),
        (COMMAND_LINE, ROOT.as_bytes()),
    ] {
        let to = out.join(file);
        fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
    }
    println!("{}", out.display());
    Ok(())
}

/// What an image says of its programs, for the agent.
fn defaults(config: &ImageConfig) -> anyhow::Result<ProgramDefaults> {
    let mut defaults = ProgramDefaults {
        cwd: config.working_dir.clone(),
        user: config.user.clone(),
        ..ProgramDefaults::default()
    };
    for (name, value) in &config.env {
        defaults.env.insert(name, value)?;
    }
    Ok(defaults)
}
