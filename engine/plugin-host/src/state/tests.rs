//! What a call sees of the state, and what of it stays.

use super::*;

fn state(store: Arc<VolatileState>) -> PluginState {
    let options = StateOptions {
        keys: 3,
        kib: 1,
        value_kib: 1,
    };
    PluginState::load("quota", options, store).expect("loads")
}

#[test]
fn writes_are_seen_by_their_call_then_by_all_and_outlive_the_process() {
    let store = Arc::new(VolatileState::default());
    let plugin = state(Arc::clone(&store));
    let mut view = plugin.view(1000);
    assert_eq!(
        view.add(vec![("n".into(), 2), ("n".into(), 3)]),
        Ok(vec![2, 5])
    );
    assert_eq!(view.get("n"), Some(5_i64.to_le_bytes().to_vec()));
    assert_eq!(plugin.view(1000).get("n"), None, "not committed yet");
    plugin.commit(view).expect("commits");
    assert_eq!(
        plugin.view(1000).get("n"),
        Some(5_i64.to_le_bytes().to_vec())
    );
    assert_eq!(
        state(store).view(1000).get("n"),
        Some(5_i64.to_le_bytes().to_vec())
    );
}

#[test]
fn entry_ends_with_its_time_and_leaves_the_store_at_the_next_commit() {
    let store = Arc::new(VolatileState::default());
    let plugin = state(Arc::clone(&store));
    let mut view = plugin.view(1000);
    assert_eq!(
        view.set(vec![("a".into(), Some(vec![1]))], Some(500)),
        Ok(())
    );
    plugin.commit(view).expect("commits");
    assert_eq!(plugin.view(1499).get("a"), Some(vec![1]));
    assert_eq!(plugin.view(1500).get("a"), None);
    let mut later = plugin.view(1500);
    assert_eq!(later.set(vec![("b".into(), Some(vec![2]))], None), Ok(()));
    plugin.commit(later).expect("commits");
    let left: Vec<String> = store
        .load("quota")
        .expect("loads")
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(left, ["b"]);
}

#[test]
fn write_over_a_bound_changes_nothing_and_says_which_bound() {
    let plugin = state(Arc::default());
    let mut view = plugin.view(0);
    assert_eq!(
        view.set(vec![("big".into(), Some(vec![0; 1025]))], None),
        Err(StateRefusal::TooLarge)
    );
    let four = (0..4).map(|n| (format!("k{n}"), Some(vec![]))).collect();
    assert_eq!(view.set(four, None), Err(StateRefusal::Quota));
    assert_eq!(view.get("k0"), None);
    let full = |key: &str| vec![(key.to_owned(), Some(vec![0; 600]))];
    assert_eq!(view.set(full("a"), None), Ok(()));
    assert_eq!(view.set(full("b"), None), Err(StateRefusal::Quota));
    assert_eq!(
        view.set(full("a"), None),
        Ok(()),
        "replacing does not count twice"
    );
    assert_eq!(
        view.add(vec![("a".into(), 1)]),
        Err(StateRefusal::TypeMismatch)
    );
    assert_eq!(view.add(vec![("n".into(), i64::MAX)]), Ok(vec![i64::MAX]));
    assert!(matches!(
        view.add(vec![("n".into(), 1)]),
        Err(StateRefusal::Other(_))
    ));
}
