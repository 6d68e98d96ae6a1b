//! A small registry in a thread, over real sockets, that fails as it is told to.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use brood_rootfs::Digest;

use super::image::TestImage;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Its path with the query.
    pub(crate) path: String,
    headers: HashMap<String, String>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Whether a request was answered.
#[derive(PartialEq, Eq)]
pub(crate) enum Answered {
    Yes,
    /// As a registry without a fault would.
    Usually,
}

type Fault = dyn Fn(&Asked, usize, &mut TcpStream) -> Answered + Send + Sync;

/// The registry; it lives as long as the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Asked>>>,
}

/// One answer.
pub(crate) fn answer(to: &mut TcpStream, status: &str, headers: &[&str], body: &[u8]) -> Answered {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    send(to, format!("{head}\r\n").as_bytes());
    send(to, body);
    Answered::Yes
}

/// An answer that promises `promised` bytes and ends after those of `body`.
pub(crate) fn cut(to: &mut TcpStream, promised: usize, body: &[u8]) -> Answered {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {promised}\r\nConnection: close\r\n\r\n");
    send(to, head.as_bytes());
    send(to, body);
    Answered::Yes
}

/// Whoever has seen enough closes; what becomes of the rest is theirs to say.
fn send(to: &mut TcpStream, bytes: &[u8]) {
    if let Err(error) = to.write_all(bytes) {
        println!("the other end has closed: {error}");
    }
}

impl Server {
    /// Has the image as `app:v1`. `fault` sees each request first, with how often its path was asked for before.
    pub(crate) fn start(
        image: &TestImage,
        fault: impl Fn(&Asked, usize, &mut TcpStream) -> Answered + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut content = HashMap::new();
        let manifest = image.manifest();
        content.insert("/v2/app/manifests/v1".to_owned(), manifest.clone());
        content.insert(
            format!("/v2/app/manifests/{}", Digest::of(&manifest)),
            manifest,
        );
        for blob in image.blobs() {
            content.insert(format!("/v2/app/blobs/{}", Digest::of(&blob)), blob);
        }
        let fault: Box<Fault> = Box::new(fault);
        let keeper = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &content, &fault, &keeper);
            }
        });
        Self { address, seen }
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/app:v1", self.address)
    }

    /// The requests for paths that contain `part`.
    pub(crate) fn asked(&self, part: &str) -> Vec<Asked> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|asked| asked.path.contains(part))
            .cloned()
            .collect()
    }
}

fn serve(
    mut stream: TcpStream,
    content: &HashMap<String, Vec<u8>>,
    fault: &Fault,
    seen: &Mutex<Vec<Asked>>,
) {
    let Some(asked) = request(&stream) else {
        return;
    };
    let before = {
        let mut seen = seen.lock().unwrap();
        let before = seen.iter().filter(|other| other.path == asked.path).count();
        seen.push(asked.clone());
        before
    };
    if fault(&asked, before, &mut stream) == Answered::Yes {
        return;
    }
    let Some(body) = content.get(&asked.path) else {
        let said = br#"{"errors": [{"code": "UNKNOWN", "message": "no such thing"}]}"#;
        answer(&mut stream, "404 Not Found", &[], said);
        return;
    };
    let range = asked
        .header("range")
        .and_then(|range| range.strip_prefix("bytes="));
    match range.and_then(|range| range.strip_suffix('-')) {
        Some(from) => {
            let from: usize = from.parse().unwrap();
            let range = format!(
                "Content-Range: bytes {from}-{}/{}",
                body.len() - 1,
                body.len()
            );
            answer(&mut stream, "206 Partial Content", &[&range], &body[from..]);
        }
        None => {
            answer(&mut stream, "200 OK", &[], body);
        }
    }
}

fn request(stream: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line.ok()?;
        match line.split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    Some(Asked { path, headers })
}

/// Answers no more until the other end has closed.
pub(crate) fn stall(stream: &mut TcpStream) -> Answered {
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        println!("the other end has closed: {error}");
    }
    Answered::Yes
}
