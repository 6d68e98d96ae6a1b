//! What is left, and what follows.

use brood_plugin::billing::Action;

use super::*;

const LEVELS: &str = r#""levels": [{"below": "10", "action": "warn"}, {"below": "0", "action": "refuse-forks"},
    {"below": "-5", "action": "stop"}]"#;

/// One unit of usage costs 1 EUR.
fn settings(limit: &str) -> String {
    plan(&format!(
        r#"{{"prices": [{{"name": "cpu", "dimension": "vcpu-ns", "per": 1, "tiers": [{{"price": "1"}}]}}],
            "budget": {{"limit": "{limit}", {LEVELS}}}}}"#
    ))
}

fn left(limit: &str, used: i64, balances: Vec<Balance>) -> (i64, Action, String) {
    let mut batch = batch(vec![sample(1, used)]);
    batch.balances = balances;
    let rated = rate(&settings(limit), batch);
    let [budget] = <[_; 1]>::try_from(rated.budgets).unwrap();
    assert_eq!(budget.account, 0);
    (budget.left_nanos, budget.action, budget.message)
}

const EUR: i64 = 1_000_000_000;

#[test]
fn credit_less_what_was_spent_less_this_batch_is_left() {
    let (left, action, message) = left("0", 3, vec![balance("EUR", 20 * EUR, 100 * EUR)]);
    assert_eq!(
        (left, action, message.as_str()),
        (77 * EUR, Action::None, "")
    );
}

#[test]
fn lowest_level_that_is_passed_counts() {
    let at = |credit: i64| left("0", 1, vec![balance("EUR", 0, credit * EUR)]);
    assert_eq!(at(11).1, Action::None);
    assert_eq!(at(10).1, Action::Warn);
    assert_eq!(at(1).1, Action::Warn, "0 is not below 0");
    assert_eq!(at(0).1, Action::RefuseForks);
    assert_eq!(at(-5).1, Action::Stop);
    assert_eq!(
        at(0).2,
        "tenant acme has -1 EUR left, less than 0: nothing new begins"
    );
}

#[test]
fn limit_is_what_may_be_spent_beyond_the_credit() {
    assert_eq!(left("50", 20, Vec::new()).0, 30 * EUR);
    assert_eq!(left("50", 20, vec![balance("EUR", 0, 5 * EUR)]).0, 35 * EUR);
}

#[test]
fn balance_in_another_currency_does_not_pay() {
    assert_eq!(left("0", 1, vec![balance("USD", 0, 100 * EUR)]).0, -EUR);
}

#[test]
fn own_budget_of_an_account_replaces_that_of_its_plan() {
    let settings = r#"{"currency": "EUR", "accounts": {"acme": {"plan": "p", "budget": {"limit": "7", "levels": []}}},
        "plans": {"p": {"budget": {"limit": "1", "levels": [{"below": "99", "action": "stop"}]}}}}"#;
    let rated = rate(settings, batch(vec![sample(1, 1)]));
    assert_eq!(
        (rated.budgets[0].left_nanos, &rated.budgets[0].action),
        (7 * EUR, &Action::None)
    );
}

#[test]
fn account_without_a_budget_has_no_verdict() {
    let rated = rate(&plan("{}"), batch(vec![sample(1, 1)]));
    assert!(rated.budgets.is_empty());
}

#[test]
fn what_is_left_beyond_64_bits_fails_the_batch() {
    let mut batch = batch(vec![sample(1, 1)]);
    batch.balances = vec![balance("EUR", i64::MAX, i64::MIN)];
    let error = try_rate(&settings("0"), batch).unwrap_err();
    assert_eq!(
        error,
        HookError::Other("account 0: what is left exceeds 64 bits".to_owned())
    );
}
