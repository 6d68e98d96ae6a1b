//! The command line where Linux guests run: programs, and how they end.

use crate::serve::Serve;

#[test]
fn lab_a_program_is_run_in_a_machine_and_its_end_is_the_commands() {
    let Some(serve) = Serve::start_with_guest() else {
        return;
    };
    serve.good(&["template", "create", "linux"]);
    serve.good(&["create", "linux", "--name", "mother"]);
    let exec = |rest: &[&str]| serve.brood(&[&["exec", "mother"], rest].concat());
    let said = exec(&[
        "-e",
        "WHO=her",
        "--",
        "sh",
        "-c",
        "echo $WHO; echo odd >&2; exit 7",
    ]);
    assert_eq!(
        (said.status, said.stdout.as_str(), said.stderr.as_str()),
        (7, "her\n", "odd\n")
    );
    assert_eq!(exec(&["sh", "-c", "kill -9 $$"]).status, 137);
    let late = exec(&[
        "--timeout",
        "200ms",
        "--",
        "sh",
        "-c",
        "while :; do :; done",
    ]);
    assert_eq!(late.status, 124);
    assert_eq!(serve.json(&["exec", "mother", "false"]).status, 1);

    // Daughters have what they were told, before their workload runs.
    let forked = serve.good(&["fork", "mother", "-n", "2", "-e", "TASK=t"]);
    let daughters = forked["daughters"].as_array().cloned().unwrap_or_default();
    assert_eq!(daughters.len(), 2);
    for daughter in daughters {
        let id = daughter["machine"]["id"].as_str().unwrap_or_default();
        let name = serve.text(&["exec", id, "--", "sh", "-c", "echo $(uname -n) $TASK"]);
        let hostname = daughter["hostname"].as_str().unwrap_or_default();
        assert_eq!(name, format!("{hostname} t\n"));
    }
    serve.good(&["kill", "mother", "--cascade"]);
    assert_eq!(serve.text(&["ls", "-q"]), "");
}
