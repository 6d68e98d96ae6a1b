//! The changes of a store's directory, announced one by one. Invariant: without anybody to announce them to they are not
//! counted and cost nothing.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

type Hook = dyn Fn(&'static str, &Path) -> io::Result<()> + Send + Sync;

/// Who is told of each change before it is made, and may refuse it.
#[derive(Clone, Default)]
pub struct Steps(Option<Arc<Hook>>);

impl Steps {
    /// Tells `hook` what is done and to which path.
    pub fn told(
        hook: impl Fn(&'static str, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(super) fn announce(&self, what: &'static str, path: &Path) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |hook| hook(what, path))
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "told" } else { "untold" })
    }
}
