//! The page at `/ui`, in headless Chromium.

use std::fs;

use crate::policy::SHIPPED;
use crate::serve::Serve;
use crate::watch::{file, python, workspace};

#[test]
fn the_page_shows_forks_costs_and_verdicts_as_they_come_and_runs_nothing_of_a_tenants() {
    let Some(mut chromium) = python(&["selenium.webdriver"]) else {
        return;
    };
    let few = SHIPPED.replace("max-per-request = 64", "max-per-request = 4");
    let Some(server) = Serve::start_with(&few) else {
        return;
    };
    let pictures = workspace().join("target/ui");
    fs::create_dir_all(&pictures).expect("a place for pictures");
    let looked = chromium
        .arg(file("ui.py"))
        .arg(&server.url)
        .arg(&pictures)
        .env("BROOD_KEY", &server.key)
        .env("PYTHONPATH", workspace().join("sdk/python/src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("it starts");
    let words = String::from_utf8_lossy(&looked.stderr);
    assert!(looked.status.success(), "{words}");
    for name in [
        "ui-light.png",
        "ui-dark.png",
        "ui-usage.png",
        "ui-narrow.png",
    ] {
        let picture = fs::read(pictures.join(name)).expect("a picture");
        assert!(picture.starts_with(b"\x89PNG"), "{name}");
    }
}

#[test]
fn the_page_is_in_the_program_and_allows_nothing_that_is_not_its_own() {
    let Some(server) = Serve::start_with("version = 1\n") else {
        return;
    };
    let files = [
        ("GET /ui", "text/html"),
        ("GET /ui/console.js", "text/javascript"),
        ("GET /ui/console.css", "text/css"),
    ];
    for (line, media) in files {
        let head = server.head_as("", line).to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{line}: {head}");
        assert!(head.contains(&format!("content-type: {media}")), "{head}");
        for policy in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(head.contains(policy), "{line}: {head}");
        }
        assert!(!head.contains("unsafe-"), "{line}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        let body = server.body(line, "");
        for word in ["http://", "https://", "innerHTML", "unsafe-inline", "eval("] {
            assert!(!body.contains(word), "{line} has {word}");
        }
    }
}
