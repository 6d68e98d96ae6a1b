//! A real registry, Debian's docker-registry, with logins, and a Debian with Python in it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use brood_rootfs::{
    Credentials, Digest, DiskOptions, Limits, Registry, RegistryOptions, Store, Users,
};
use serde_json::json;

use crate::common::image::TestImage;
use crate::common::{chain, check, debugfs, read, stat};

/// ann:s3cret, as docker keeps it and as HTTP shows it.
const LOGIN: &str = "YW5uOnMzY3JldA==";

/// What xtask made, or none (with a printed reason).
fn fixture() -> Option<PathBuf> {
    let layers = std::env::var_os("BROOD_DEBIAN_LAYERS");
    if layers.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "BROOD_DEBIAN_LAYERS is not set: run `cargo xtask test`"
        );
        println!("skipped: BROOD_DEBIAN_LAYERS is not set; `cargo xtask test` sets it");
    }
    layers.map(PathBuf::from)
}

/// A registry; it ends with the test.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Running {
    fn start(place: &Path) -> Self {
        let htpasswd = Command::new("htpasswd")
            .args(["-nbB", "ann", "s3cret"])
            .output()
            .unwrap();
        fs::write(place.join("htpasswd"), htpasswd.stdout).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let place = place.display();
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {place}/registry}}}}\n\
             http: {{addr: '{address}'}}\nauth: {{htpasswd: {{realm: here, path: {place}/htpasswd}}}}\n"
        );
        let path = format!("{place}/config.yml");
        fs::write(&path, config).unwrap();
        let mut child = Command::new("docker-registry")
            .args(["serve", &path])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = said
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains("listening on"));
        assert!(ready.is_some(), "the registry ended");
        // What it goes on to say has to go somewhere.
        std::thread::spawn(move || said.for_each(drop));
        Self { child, address }
    }

    fn push(&self, name: &str, image: &TestImage) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let login = format!("Basic {LOGIN}");
        let mut blobs = image.blobs();
        let manifest = blobs.pop().unwrap();
        for blob in blobs {
            let url = format!("http://{}/v2/{name}/blobs/uploads/", self.address);
            let begun = agent
                .post(&url)
                .header("Authorization", &login)
                .send_empty()
                .unwrap();
            assert_eq!(begun.status(), 202);
            let to = begun.headers()["Location"].to_str().unwrap();
            let to = format!("{to}&digest={}", Digest::of(&blob));
            let sent = agent
                .put(&to)
                .header("Authorization", &login)
                .send(&blob[..])
                .unwrap();
            assert_eq!(sent.status(), 201);
        }
        let url = format!("http://{}/v2/{name}/manifests/v1", self.address);
        let put = agent
            .put(&url)
            .header("Authorization", &login)
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(put.send(&manifest[..]).unwrap().status(), 201);
    }
}

/// A tar file's content of one name, by the other implementation.
fn from_tar(layer: &Path, name: &str) -> Vec<u8> {
    let output = Command::new("tar")
        .arg("-xOf")
        .arg(layer)
        .arg(name)
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}");
    output.stdout
}

#[test]
fn debian_with_python_goes_through_a_registry_to_a_root_disk() {
    let Some(layers) = fixture() else { return };
    let place = tempfile::tempdir().unwrap();
    let registry = Running::start(place.path());
    let plain = ["base.tar", "python.tar"].map(|name| fs::read(layers.join(name)).unwrap());
    let config = json!({
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1"],
        "Entrypoint": ["python3"], "User": "games", "WorkingDir": "/tmp",
    });
    let image = TestImage::new(&plain, config);
    registry.push("debian/python", &image);

    // As `docker login` writes it.
    let file = place.path().join("config.json");
    let auths = json!({"auths": {registry.address.to_string(): {"auth": LOGIN}}});
    fs::write(&file, auths.to_string()).unwrap();
    let options = RegistryOptions {
        credentials: Credentials::of_docker(&file).unwrap(),
        ..RegistryOptions::default()
    };
    let client = Registry::new(options).unwrap();
    let reference = format!("{}/debian/python:v1", registry.address)
        .parse()
        .unwrap();
    let store = Store::open(&place.path().join("store"), Limits::default()).unwrap();
    let session = store.begin().unwrap();
    let pulled = session.pull(&client, &reference, |_| ());
    let pulled = pulled.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(pulled.manifest, Digest::of(&image.manifest()));
    assert_eq!(pulled.config.argv(), ["python3"]);
    let disk = session.disk(&pulled, DiskOptions::default());
    let disk = disk.unwrap_or_else(|error| panic!("{}", chain(&error)));
    check(&disk.path);

    let python = layers.join("python.tar");
    let target = stat(&disk.path, "/usr/bin/python3");
    let target = target
        .split("Fast link dest: \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let program = debugfs(&disk.path, &format!("cat /usr/bin/{target}"));
    let wanted = from_tar(&python, &format!("./usr/bin/{target}"));
    assert_eq!(Digest::of(&program), Digest::of(&wanted));
    assert!(stat(&disk.path, &format!("/usr/bin/{target}")).contains("Mode:  0755"));
    let passwd = read(&disk.path, "/etc/passwd");
    assert_eq!(
        passwd.as_bytes(),
        from_tar(&layers.join("base.tar"), "./etc/passwd")
    );

    let users = Users::of(&disk).unwrap();
    let user = users
        .resolve(pulled.config.user.as_deref().unwrap())
        .unwrap();
    assert_eq!((user.uid, user.gid), (5, 60));

    // Without a login it is not had.
    let nobody = Registry::new(RegistryOptions::default()).unwrap();
    let refused = session.pull(&nobody, &reference, |_| ());
    assert!(chain(&refused.expect_err("no login")).contains("there is no login"));
}
