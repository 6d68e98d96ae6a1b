//! Who pulls, with a store of their own.

use std::fs;

use brood_rootfs::{
    Credentials, Image, Limits, Login, PullError, Registry, RegistryOptions, Store,
};

use super::chain;
use super::server::Server;

/// A store and its directory.
pub(crate) struct Puller {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Puller {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Limits::default()).unwrap();
        Self { directory, store }
    }

    pub(crate) fn pull(&self, name: &str, options: RegistryOptions) -> Result<Image, PullError> {
        let registry = Registry::new(options)?;
        let reference = name.parse().unwrap();
        self.store
            .begin()
            .unwrap()
            .pull(&registry, &reference, |_| ())
    }

    pub(crate) fn refusal(&self, name: &str, options: RegistryOptions) -> String {
        chain(&self.pull(name, options).expect_err("it is refused"))
    }

    pub(crate) fn partial(&self) -> Vec<u64> {
        let entries = fs::read_dir(self.directory.path().join("partial")).unwrap();
        entries
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect()
    }
}

/// Options with a login for a server.
pub(crate) fn with(login: Login, server: &Server) -> RegistryOptions {
    let credentials = Credentials::default().with(&server.address.to_string(), login);
    RegistryOptions {
        credentials,
        ..RegistryOptions::default()
    }
}
