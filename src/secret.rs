//! Text that must never be printed.

use std::{fmt, ops::Deref, sync::Arc};

use zeroize::{Zeroize, Zeroizing};

/// A token: cheap to clone, `***` in `Debug`, wiped when the last clone goes.
#[derive(Clone)]
pub(crate) struct Secret(Arc<Zeroizing<Box<str>>>);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }
}

impl From<String> for Secret {
    fn from(mut text: String) -> Self {
        let secret = Self::from(text.as_str());
        text.zeroize();
        secret
    }
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_but_does_not_print() {
        let secret = Secret::from("hush".to_owned());
        assert_eq!(&*secret, "hush");
        assert_eq!(format!("{secret:?} {secret:#?}"), "*** ***");
    }
}
