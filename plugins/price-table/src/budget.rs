//! What is left of each account's budget after this batch, and what follows from it.

use brood_plugin::billing::{Action, Batch, Budget};
use brood_plugin::types::HookError;

use crate::money::Money;
use crate::rate::{Standing, as_index, malformed};

/// One verdict for each account that has a budget: what it may spend is its credit and its limit.
pub(crate) fn verdicts(batch: &Batch, accounts: &[Standing<'_>]) -> Result<Vec<Budget>, HookError> {
    let mut left = Vec::with_capacity(accounts.len());
    for account in accounts {
        let limit = account
            .customer
            .limit
            .filter(|_| !account.customer.internal);
        left.push(limit.map(|limit| i128::from(limit.0) - i128::from(account.cost)));
    }
    for (index, balance) in batch.balances.iter().enumerate() {
        let account = as_index(balance.account);
        let (Some(standing), Some(left)) = (accounts.get(account), left.get_mut(account)) else {
            return Err(malformed(format!("balance {index}: no such account")));
        };
        // Another currency pays for other plans.
        if balance.currency == standing.currency
            && let Some(left) = left
        {
            *left += i128::from(balance.credit_nanos) - i128::from(balance.spent_nanos);
        }
    }
    let mut verdicts = Vec::new();
    for (index, (account, left)) in accounts.iter().zip(left).enumerate() {
        let Some(left) = left else { continue };
        let beyond = |_| malformed(format!("account {index}: what is left exceeds 64 bits"));
        let left = i64::try_from(left).map_err(beyond)?;
        verdicts.push(verdict(batch, index, account, left));
    }
    Ok(verdicts)
}

fn verdict(batch: &Batch, index: usize, account: &Standing<'_>, left: i64) -> Budget {
    let levels = &account.customer.levels;
    let level = levels.iter().find(|level| left < level.below.0);
    let (action, follows) = match level.map(|level| level.action) {
        None => (Action::None, ""),
        Some(0) => (Action::Warn, "this is a warning"),
        Some(1) => (Action::RefuseForks, "nothing new begins"),
        Some(2) => (Action::Pause, "machines are paused"),
        Some(_) => (Action::Stop, "machines are ended"),
    };
    let message = level.map_or_else(String::new, |level| {
        let tenant = batch
            .accounts
            .get(index)
            .map_or("", |account| account.tenant.as_str());
        let (left, below, currency) = (Money(left), level.below, account.currency);
        format!("tenant {tenant} has {left} {currency} left, less than {below}: {follows}")
    });
    Budget {
        account: u32::try_from(index).unwrap_or(u32::MAX),
        left_nanos: left,
        action,
        message,
    }
}
