//! A warning about a project with two handles.
//!
//! Each handle sees only its own refreshes. If two handles get requests with the same expired session, the second one
//! sends a refresh token that is already rotated, and Crossmint ends the session.

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
    _is_warned_of: Arc<AtomicBool>,
}

impl Registration {
    /// Registers a handle. Warns, once, if its project already has one.
    pub(crate) fn new(config: &Checked) -> Self {
        let (project_id, base_url) = (config.settings.api_key.project_id(), config.settings.base_url.as_str());
        let project = (project_id.into(), base_url.into());
        // Unlocked before the event is logged: a subscriber could create a handle itself.
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, is_warned_of| is_warned_of.strong_count() > 0);
        let Some(is_warned_of) = live.get(&project).and_then(Weak::upgrade) else {
            let is_warned_of = Arc::default();
            if live.len() < MAX_PROJECTS {
                live.insert(project, Arc::downgrade(&is_warned_of));
            }
            return Self { _is_warned_of: is_warned_of };
        };
        drop(live);
        // Relaxed: the flag guards no other data.
        if !is_warned_of.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                project_id,
                "two handles with separate caches are in use for one project, and a session that is refreshed through both \
                 is signed out: clone the layer or the configuration, or use `CrossmintAuthLayer::from(auth.clone())`"
            );
        }
        Self { _is_warned_of: is_warned_of }
    }
}

/// A project's ID, and the base URL of its Crossmint.
type Project = (Box<str>, Box<str>);

/// For each project, whether the warning has been logged. The flag is owned by the project's live handles.
static LIVE: Mutex<BTreeMap<Project, Weak<AtomicBool>>> = Mutex::new(BTreeMap::new());

/// Beyond this many projects, there is no warning: the list must not grow with the number of tenants.
const MAX_PROJECTS: usize = 1024;
