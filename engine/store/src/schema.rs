//! The schema, and how a database of an earlier program becomes one of this.
//!
//! Invariant: a step is taken whole or not at all, and a database of a newer program is not touched.

use rusqlite::{Connection, TransactionBehavior};

/// Marks a file as ours (sqlite.org, "Application Id"): "brod".
const APPLICATION_ID: i64 = 0x6272_6f64;

/// Step `n` makes version `n + 1`.
pub(crate) const STEPS: &[&str] = &[
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
    include_str!("schema/6.sql"),
];

/// Why a database does not come to the newest version.
#[derive(Debug)]
pub(crate) enum SchemaError {
    Newer { found: i64, known: i64 },
    Foreign,
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Takes the steps that are missing.
pub(crate) fn migrate(connection: &mut Connection, steps: &[&str]) -> Result<(), SchemaError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |pragma: &str| -> rusqlite::Result<i64> {
        transaction.pragma_query_value(None, pragma, |row| row.get(0))
    };
    let tables = "SELECT count(*) FROM sqlite_schema";
    let is_empty = transaction.query_row(tables, [], |row| row.get::<_, i64>(0))? == 0;
    let found = number("user_version")?;
    if !is_empty && number("application_id")? != APPLICATION_ID {
        return Err(SchemaError::Foreign);
    }
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(SchemaError::Newer { found, known });
    }
    let missing = steps.iter().skip(usize::try_from(found).unwrap_or(0));
    for step in missing {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE one (a INTEGER) STRICT;";

    fn version(connection: &Connection) -> i64 {
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0));
        version.expect("a version")
    }

    #[test]
    fn a_database_of_the_program_before_gets_only_the_steps_it_lacks_and_keeps_its_rows() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate(&mut connection, &[FIRST]).expect("the first");
        connection
            .execute("INSERT INTO one VALUES (7)", [])
            .expect("a row");
        let second = "ALTER TABLE one ADD COLUMN b INTEGER NOT NULL DEFAULT 9;";
        migrate(&mut connection, &[FIRST, second]).expect("the second");
        let row = connection.query_row("SELECT a, b FROM one", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        });
        assert_eq!(row, Ok((7, 9)));
        assert_eq!(version(&connection), 2);
    }

    #[test]
    fn a_step_that_fails_half_way_leaves_the_database_as_it_was() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate(&mut connection, &[FIRST]).expect("the first");
        let broken = "CREATE TABLE two (a INTEGER) STRICT; CREATE TABLE two (a INTEGER);";
        assert!(migrate(&mut connection, &[FIRST, broken]).is_err());
        assert_eq!(version(&connection), 1);
        let two = "SELECT count(*) FROM sqlite_schema WHERE name = 'two'";
        assert_eq!(connection.query_row(two, [], |row| row.get(0)), Ok(0));
    }

    #[test]
    fn a_newer_schema_and_the_database_of_another_program_are_refused_untouched() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate(&mut connection, &[FIRST, "CREATE TABLE two (a INTEGER);"]).expect("newer");
        let refused = migrate(&mut connection, &[FIRST]);
        let newer = SchemaError::Newer { found: 2, known: 1 };
        assert_eq!(format!("{refused:?}"), format!("{:?}", Err::<(), _>(newer)));
        assert_eq!(version(&connection), 2);

        let mut foreign = Connection::open_in_memory().expect("memory");
        foreign.execute_batch(FIRST).expect("a table");
        assert!(matches!(
            migrate(&mut foreign, &[FIRST]),
            Err(SchemaError::Foreign)
        ));
    }
}
