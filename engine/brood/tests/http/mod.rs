//! A server over a real socket, with real cells and the real database, and a client that says exactly what it is told to.

pub(crate) mod apart;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use brood_front::Options;
use brood_service::engine::Engine;
use brood_service::host::Host;
use brood_service::secret::{KEY_BYTES, SecretKey};
use brood_store::{Store, StoreOptions};
use brood_testkit::scratch;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::policy::{Bound, SHIPPED, bound};

/// So long a test waits for an answer before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server.
pub(crate) struct Server {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) key: String,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<std::io::Result<()>>>,
    runtime: Runtime,
    directory: tempfile::TempDir,
    // Last: bindings call into it.
    bound: Bound,
}

/// A response.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        let words = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| unreachable!("{error}: {words}"))
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The problem that it is.
    pub(crate) fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let json = self.json();
        assert_eq!(json["status"], self.status);
        for word in ["title", "detail", "cause", "remediation", "request_id"] {
            assert!(json[word].is_string(), "{word}: {json}");
        }
        json["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Server {
    /// None, with a printed reason, if the shipped components were not built.
    pub(crate) fn start(options: Options) -> Option<Self> {
        Self::start_with(SHIPPED, options)
    }

    pub(crate) fn start_with(policy: &str, options: Options) -> Option<Self> {
        Self::start_on(policy, options, None)
    }

    /// On a host with the files of Linux guests, or without.
    pub(crate) fn start_on(policy: &str, options: Options, files: Option<&Path>) -> Option<Self> {
        let bound = bound(policy)?;
        let runtime = Runtime::new().expect("a runtime");
        let directory = scratch();
        let (stop, stopped) = oneshot::channel::<()>();
        let path = directory.path();
        let (engine, store, key, listener) = runtime.block_on(async {
            let store = Store::open(&path.join("state"), &StoreOptions::default()).expect("opens");
            let program = PathBuf::from(env!("CARGO_BIN_EXE_brood"));
            let host = Host::open(&program, files, path).expect("a host");
            let panels = bound.open(policy).expect("binds");
            let engine = Engine::open(store.clone(), host, panels);
            let engine = engine.await.expect("an engine");
            let sealed_with = SecretKey::of(&[7; KEY_BYTES]);
            engine.unlock_secrets(sealed_with).expect("it opens");
            let key = engine.first_key("acme", |_| {}).await.expect("a key");
            let key = key.expect("it is the first").reveal().to_owned();
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
            (engine, store, key, listener)
        });
        let address = listener.local_addr().expect("an address");
        let serve = brood_front::serve(listener, engine.clone(), options, async {
            stopped.await.ok();
        });
        let served = Some(runtime.spawn(serve));
        Some(Self {
            engine,
            store,
            key,
            address,
            stop: Some(stop),
            served,
            runtime,
            directory,
            bound,
        })
    }

    /// SHA-256 of a component that it was started with, in hexadecimal.
    pub(crate) fn component_digest(&self, name: &str) -> String {
        let bytes = std::fs::read(self.bound.components().join(name)).expect("it is read");
        brood_plugin_host::Digest::of(&bytes).hex()
    }

    /// Everything that it keeps, one file after another.
    pub(crate) fn kept(&self) -> Vec<u8> {
        bytes_below(self.directory.path())
    }

    /// A connection.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is set");
        stream
    }

    /// Sends bytes and reads until the server has closed the connection.
    pub(crate) fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that has heard enough closes its ear.
        stream.write_all(request).ok();
        answer(&mut stream)
    }

    pub(crate) fn ask(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.raw(request(line, headers, body).as_bytes())
    }

    /// Asks with the first key.
    pub(crate) fn call(&self, line: &str, body: &str) -> Answer {
        self.as_key(&self.key, line, body)
    }

    /// Asks with another key.
    pub(crate) fn as_key(&self, key: &str, line: &str, body: &str) -> Answer {
        let key = format!("Bearer {key}");
        self.ask(line, &[("Authorization", &key)], body)
    }

    /// Asks and expects it to be done.
    pub(crate) fn good(&self, line: &str, body: &str) -> Value {
        let answer = self.call(line, body);
        let words = String::from_utf8_lossy(&answer.body);
        assert!(answer.status < 300, "{line}: {} {words}", answer.status);
        answer.json()
    }

    /// A template and a machine of it; the id of that.
    pub(crate) fn mother(&self) -> String {
        let template = r#"{"name": "counter", "guest": "bare", "memory_mib": 64}"#;
        self.good("POST /v1/templates", template);
        let machine = r#"{"template": "counter", "name": "mother"}"#;
        text(&self.good("POST /v1/machines", machine)["id"])
    }

    /// Follows events; lines of the stream.
    pub(crate) fn follow(&self, key: &str, after: i64) -> impl Iterator<Item = String> + use<> {
        self.stream(key, "GET /v1/events", Some(&after.to_string()))
    }

    /// Follows anything, from an id on.
    pub(crate) fn stream(
        &self,
        key: &str,
        line: &str,
        last: Option<&str>,
    ) -> impl Iterator<Item = String> + use<> {
        let mut stream = self.connect();
        let key = format!("Bearer {key}");
        let mut headers = vec![
            ("Authorization", key.as_str()),
            ("Accept", "text/event-stream"),
        ];
        headers.extend(last.map(|last| ("Last-Event-ID", last)));
        let request = request(line, &headers, "");
        stream.write_all(request.as_bytes()).expect("it is sent");
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        lines.map(|line| line.trim_end().to_owned())
    }

    /// Stops the server and waits until it has ended.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(served) = self.served.take() {
            let ended = self.runtime.block_on(served).expect("it does not panic");
            ended.expect("it ends well");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        // Cells end before the directory goes.
        let closed = self.runtime.block_on(self.engine.close());
        assert!(closed.is_ok() || std::thread::panicking(), "{closed:?}");
    }
}

/// A JSON string's text.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// All bytes of all files below a directory.
pub(crate) fn bytes_below(directory: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            bytes.extend(bytes_below(&entry.path()));
        } else if kind.is_file() {
            bytes.extend(std::fs::read(entry.path()).expect("it is read"));
        }
    }
    bytes
}

/// Whether bytes hold some text.
pub(crate) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|some| some == text.as_bytes())
}

pub(crate) fn request(line: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut request = format!("{line} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        request.push_str("Content-Type: application/json\r\n");
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    request
}

/// Reads a response to the end of the connection.
pub(crate) fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A server that cuts a connection off may have answered before.
    stream.read_to_end(&mut bytes).ok();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.unwrap_or(0),
        body: bytes.get(end + 4..).unwrap_or_default().to_vec(),
        head,
    }
}
