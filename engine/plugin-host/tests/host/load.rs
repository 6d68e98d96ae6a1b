//! Files that are not what they should be, and settings that are not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use brood_hooks::FailureKind;
use brood_plugin_host::{AddError, CompileError, Digest, Host, LoadError, Silent, VolatileState};
use brood_policy::{Grants, Import};
use serde_json::json;

use crate::component::Component;
use crate::place::{NOW, admit, ask, bind, host, is_sound, options, spec};

fn sound() -> Component {
    Component::new("admission-policy").answer("review", admit(2))
}

/// Why a component is refused. Its refusal is counted, and the host goes on.
fn refused(host: &Host, bytes: &[u8]) -> LoadError {
    let before = host.counters().refused;
    let error = match host.add(&spec(), bytes) {
        Err(AddError::Load(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    };
    assert_eq!(host.counters().refused, before + 1);
    assert!(error.to_string().contains("plugin test"), "{error}");
    error
}

fn why(error: &LoadError) -> &CompileError {
    match error {
        LoadError::Compile { source, .. } => source,
        other => panic!("{other}"),
    }
}

#[test]
fn file_that_is_no_component_is_named_for_what_it_is() {
    let host = host();
    let module = wat::parse_str("(module)").expect("a module");
    assert!(matches!(
        why(&refused(&host, &module)),
        CompileError::CoreModule
    ));
    assert!(matches!(
        why(&refused(&host, b"#!/bin/sh\n")),
        CompileError::NotWasm { .. }
    ));
    assert!(matches!(
        why(&refused(&host, b"")),
        CompileError::NotWasm { .. }
    ));
    let whole = sound().build();
    for length in [8, 9, 100, whole.len() / 2, whole.len() - 1] {
        let error = refused(&host, &whole[..length]);
        let told = matches!(
            error,
            LoadError::Compile {
                source: CompileError::Refused { .. },
                ..
            } | LoadError::NoHook { .. }
        );
        assert!(told, "{length}: {error}");
    }
    bind(&host, &whole, |_| ());
    is_sound(&host);
}

#[test]
fn machine_code_from_outside_is_refused_whatever_it_is_called() {
    let cache = tempfile::tempdir().expect("a directory");
    let mut options = options();
    options.compile.cache = Some(cache.path().join("artifacts"));
    let host = Host::start(
        &options,
        Arc::new(VolatileState::default()),
        Arc::new(Silent),
    )
    .expect("starts");
    host.add(&spec(), &sound().build()).expect("loads");
    let kept = fs::read_dir(cache.path().join("artifacts"))
        .expect("reads")
        .next();
    let bytes = fs::read(kept.expect("one").expect("an entry").path()).expect("reads");
    let error = refused(&host, &bytes[32..]);
    assert!(matches!(why(&error), CompileError::Precompiled), "{error}");
    is_sound(&host);
}

#[test]
fn damaged_artifact_is_compiled_anew_and_a_cache_of_others_is_refused() {
    let place = tempfile::tempdir().expect("a directory");
    let cache = place.path().join("artifacts");
    let mut options = options();
    options.compile.cache = Some(cache.clone());
    let host = Host::start(
        &options,
        Arc::new(VolatileState::default()),
        Arc::new(Silent),
    )
    .expect("starts");
    let bytes = sound().build();
    host.add(&spec(), &bytes).expect("loads");
    let file = fs::read_dir(&cache)
        .expect("reads")
        .next()
        .expect("one")
        .expect("entry")
        .path();
    let whole = fs::read(&file).expect("reads");
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for wrong in [&damaged[..], &whole[..middle], &[]] {
        fs::write(&file, wrong).expect("writes");
        assert!(
            bind(&host, &bytes, |_| ())
                .binding
                .call_here(NOW, &ask())
                .is_ok()
        );
        assert_eq!(fs::read(&file).expect("reads"), whole, "kept anew");
    }
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).expect("sets");
    let error = refused(&host, &bytes);
    assert!(matches!(why(&error), CompileError::Cache { .. }), "{error}");
}

#[test]
fn compiler_that_needs_too_much_is_a_message_and_not_the_end_of_the_engine() {
    let mut options = options();
    options.compile.memory_mib = 24;
    let host = Host::start(
        &options,
        Arc::new(VolatileState::default()),
        Arc::new(Silent),
    )
    .expect("starts");
    let error = refused(&host, &sound().build());
    assert!(
        matches!(
            why(&error),
            CompileError::Died { .. } | CompileError::Refused { .. } | CompileError::Child { .. }
        ),
        "{error}"
    );
}

#[test]
fn compiler_that_does_not_answer_is_ended_by_the_clock() {
    let mut options = options();
    options.compile.program = "/bin/sh".into();
    options.compile.arguments = ["-c", "exec sleep 1000"].map(str::to_owned).to_vec();
    options.compile.patience_ms = 50;
    let (store, observer) = (Arc::new(VolatileState::default()), Arc::new(Silent));
    let host = Host::start(&options, store, observer).expect("starts");
    // More than a pipe holds, so that writing waits as well.
    let large = sound().pages(100).extra(&wide()).build();
    for bytes in [sound().build(), large] {
        let error = refused(&host, &bytes);
        assert!(
            matches!(
                why(&error),
                CompileError::Silent {
                    patience_ms: 50,
                    ..
                }
            ),
            "{error}"
        );
    }
}

/// Data of 200 KB.
fn wide() -> String {
    format!(r#"(data (i32.const 131072) "{}")"#, "x".repeat(200_000))
}

#[test]
fn component_that_is_endless_in_describe_or_prepare_is_refused() {
    let limited = |fuel, deadline_ms| {
        let mut options = options();
        (options.loading.fuel, options.loading.deadline_ms) = (fuel, deadline_ms);
        let (store, observer) = (Arc::new(VolatileState::default()), Arc::new(Silent));
        Host::start(&options, store, observer).expect("starts")
    };
    let (fuel, clock) = (limited(1_000_000, 60_000), limited(u64::MAX, 20));
    for function in ["describe", "prepare"] {
        let loops = sound().body(function, "(loop $again (br $again)) unreachable");
        let ends = [
            (&fuel, FailureKind::OutOfFuel),
            (&clock, FailureKind::Deadline),
        ];
        for (host, kind) in ends {
            match refused(host, &loops.build()) {
                LoadError::Call { call, failure, .. } => {
                    assert_eq!((call, failure.kind()), (function, kind));
                }
                other => panic!("{other}"),
            }
            is_sound(host);
        }
    }
}

#[test]
fn import_that_nobody_granted_or_that_no_policy_can_have_is_named() {
    let host = host();
    let clock = r#"(import "brood:policy/clock@0.1.0" "now" (func $now (result i64)))"#;
    let bytes = sound().extra(clock).build();
    let mut without = spec();
    without.grants = Grants(vec![Import::Log]);
    let error = host.load(&without, &bytes).err().expect("refused");
    assert!(
        matches!(&error, LoadError::NotGranted { asked, .. } if asked == "clock"),
        "{error}"
    );
    assert_eq!(
        host.load(&spec(), &bytes).expect("loads").imports(),
        [Import::Clock]
    );

    let wasi = wat::parse_str(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#)
        .expect("a component");
    let error = refused(&host, &wasi);
    assert!(
        matches!(&error, LoadError::UnknownImport { asked, .. } if asked.contains("wasi:cli")),
        "{error}"
    );
}

#[test]
fn component_of_another_version_of_the_package_is_told_which_is_served() {
    let host = host();
    let bytes = sound()
        .other_wit("brood:policy@0.1.0", "brood:policy@0.2.0")
        .build();
    let error = refused(&host, &bytes);
    let told = error.to_string();
    assert!(matches!(error, LoadError::OtherVersion { .. }), "{told}");
    assert!(
        told.contains("brood:policy@0.2.0") && told.contains("brood:policy@0.1.0"),
        "{told}"
    );
    let newer = sound()
        .other_wit("brood:policy@0.1.0", "brood:policy@0.1.7")
        .build();
    let bound = bind(&host, &newer, |_| ());
    assert!(
        bound.binding.call_here(NOW, &ask()).is_ok(),
        "patch versions are compatible"
    );
}

#[test]
fn pinned_digest_takes_its_component_and_no_other() {
    let host = host();
    let bytes = sound().build();
    let mut pinned = spec();
    pinned.digest = Some(Digest::of(&bytes).to_string());
    assert!(host.load(&pinned, &bytes).is_ok());
    let other = sound().answer("review", admit(1)).build();
    let error = host.load(&pinned, &other).err().expect("refused");
    assert!(matches!(error, LoadError::OtherDigest { .. }), "{error}");
}

#[test]
fn trap_in_start_fails_the_load_and_not_the_engine() {
    let host = host();
    let bytes = sound()
        .extra("(func $begin unreachable)\n(start $begin)")
        .build();
    let error = refused(&host, &bytes);
    assert!(
        matches!(
            error,
            LoadError::Call {
                call: "describe",
                ..
            }
        ),
        "{error}"
    );
    bind(&host, &sound().build(), |_| ());
}

fn with_schema(schema: &str) -> Vec<u8> {
    let description = json!({
        "name": "t", "version": "1", "settings-schema": schema, "metrics": [],
    });
    sound().answer("describe", description).build()
}

#[test]
fn settings_that_break_the_schema_are_refused_with_a_pointer_to_the_place() {
    let host = host();
    let schema = r#"{"type":"object","additionalProperties":false,
        "properties":{"limits":{"type":"object","properties":{"live":{"type":"integer","minimum":1}}}}}"#;
    let bytes = with_schema(schema);
    let mut wrong = spec();
    wrong.settings = json!({ "limits": { "live": 0 }, "extra": true });
    let error = host.load(&wrong, &bytes).err().expect("refused");
    let LoadError::Settings { diagnostics, .. } = &error else {
        panic!("{error}")
    };
    let mut at: Vec<&str> = diagnostics.iter().map(|wrong| wrong.at.as_str()).collect();
    at.sort_unstable();
    assert_eq!(at, ["", "/limits/live"], "{error}");
    let mut right = spec();
    right.settings = json!({ "limits": { "live": 1 } });
    assert!(host.load(&right, &bytes).is_ok());
}

#[test]
fn schema_that_is_none_or_refers_to_itself_for_ever_ends_in_the_child() {
    let host = host();
    assert!(matches!(
        why(&refused(&host, &with_schema("nonsense"))),
        CompileError::Refused { .. }
    ));
    // Whether the validator finds the circle or runs out of stack, the engine goes on.
    let circle = host.load(&spec(), &with_schema(r##"{"$ref":"#"}"##));
    drop(circle);
    bind(&host, &sound().build(), |_| ());
}

#[test]
fn settings_that_the_plugin_refuses_are_refused_in_its_words() {
    let host = host();
    let wrong = json!({ "err": [{ "at": "/tiers/2", "message": "overlaps the tier before it" }] });
    let error = refused(&host, &sound().answer("prepare", wrong).build());
    assert!(
        error
            .to_string()
            .contains("/tiers/2: overlaps the tier before it"),
        "{error}"
    );
}
