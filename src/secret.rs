//! Text that must never be printed.

use std::{
    fmt,
    ops::{Deref, Range},
    sync::Arc,
};

use zeroize::{Zeroize, Zeroizing};

/// A token: cheap to clone, `***` in `Debug`. Its memory is wiped when the last clone of it and of the token that it is
/// paired with is dropped.
#[derive(Clone)]
pub(crate) struct Secret {
    text: Arc<Zeroizing<Box<str>>>,
    range: Range<usize>,
}

impl Secret {
    /// Copies two tokens that stay together into one allocation.
    pub(crate) fn pair(first: &str, second: &str) -> [Self; 2] {
        // Sized exactly: a buffer that grows leaves a copy behind.
        let mut text = String::with_capacity(first.len() + second.len());
        text.push_str(first);
        text.push_str(second);
        let text = Arc::new(Zeroizing::new(text.into_boxed_str()));
        let (middle, end) = (first.len(), text.len());
        [0..middle, middle..end].map(|range| Self { text: Arc::clone(&text), range })
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self { text: Arc::new(Zeroizing::new(text.into())), range: 0..text.len() }
    }
}

impl From<String> for Secret {
    fn from(mut text: String) -> Self {
        // Converting the string in place could reallocate it and leave a copy behind.
        let secret = Self::from(text.as_str());
        text.zeroize();
        secret
    }
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text[self.range.clone()]
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
        assert_eq!(Secret::pair("hush", "hö").each_ref().map(|secret| &**secret), ["hush", "hö"]);
    }
}
