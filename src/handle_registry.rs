//! A warning about a project with two handles.
//!
//! Each handle sees only its own refreshes. If two handles get requests with the same expired session, the second one
//! sends a refresh token that is already rotated, and Crossmint ends the session. Unless they share their refreshes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::config::Checked;

/// The registration of a live handle.
pub(crate) struct Registration {
    is_duplicate: bool,
    /// Shared by all handles of the project.
    has_warned: Arc<AtomicBool>,
}

impl Registration {
    /// Registers a handle.
    pub(crate) fn new(config: &Checked) -> Self {
        let settings = &config.settings;
        let project = (settings.api_key.project_id().into(), settings.base_url.as_str().into());
        // Held for a look-up, when a handle is created.
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, has_warned| has_warned.strong_count() > 0);
        if let Some(has_warned) = live.get(&project).and_then(Weak::upgrade) {
            return Self { is_duplicate: !settings.shares_renewals(), has_warned };
        }
        let has_warned = Arc::default();
        if live.len() < MAX_PROJECTS {
            live.insert(project, Arc::downgrade(&has_warned));
        }
        Self { is_duplicate: false, has_warned }
    }

    /// Logs a warning, once, if the project had a handle already. Not while a lock is held: a subscriber may create a
    /// handle itself.
    pub(crate) fn warn_once(&self, config: &Checked) {
        // Relaxed: the flag guards no other data.
        if self.is_duplicate && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                project_id = config.settings.api_key.project_id(),
                "two handles with separate caches are in use for one project, and a session that is refreshed through both \
                 is signed out: clone the layer or the configuration, or use `CrossmintAuthLayer::from(auth.clone())`"
            );
        }
    }
}

/// A project's ID, and the base URL of its Crossmint.
type Project = (Box<str>, Box<str>);

/// For each project, whether the warning has been logged. The flag is owned by the project's live handles.
static LIVE: Mutex<BTreeMap<Project, Weak<AtomicBool>>> = Mutex::new(BTreeMap::new());

/// Beyond this many projects, there is no warning: the list must not grow with the number of tenants.
const MAX_PROJECTS: usize = 1024;

#[cfg(test)]
#[cfg(feature = "http-client")]
mod tests {
    use super::*;
    use crate::config::{ApiKey, CrossmintAuthConfig, Environment};

    #[test]
    fn the_list_is_bounded_and_forgets_dropped_handles() {
        // One client for all: each takes milliseconds to build.
        let client = reqwest::Client::new();
        let register = |number: usize| {
            let key = ApiKey::unverified(&format!("project-{number}"), Environment::Development);
            Registration::new(CrossmintAuthConfig::builder(key).http_client(client.clone()).build().unwrap().checked())
        };
        let len = || LIVE.lock().unwrap_or_else(PoisonError::into_inner).len();
        let all: Vec<_> = (0..=MAX_PROJECTS).map(register).collect();
        // Other tests have handles, too.
        assert!(len() <= MAX_PROJECTS, "{}", len());
        drop(all);
        let _another = register(MAX_PROJECTS + 1);
        assert!(len() < MAX_PROJECTS, "{}", len());
    }
}
