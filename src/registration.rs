//! A warning where one project has two handles.
//!
//! Each handle sees only its own refreshes. Of two requests with one expired session, one behind each of two handles, the
//! second sends a rotated refresh token, and Crossmint ends the session.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::config::Checked;

/// The entry of a live handle in the list of this process, removed on drop.
pub(crate) struct Registration(Option<Project>);

impl Registration {
    /// Registers a handle, and warns of the first one that its project has too many.
    pub(crate) fn new(config: &Checked) -> Self {
        let project = (config.settings.api_key.project_id().into(), config.settings.base_url.as_str().into());
        let is_news = {
            let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
            if live.len() >= MAX_PROJECTS && !live.contains_key(&project) {
                return Self(None);
            }
            let handles = live.entry(project.clone()).or_default();
            handles.count += 1;
            handles.count > 1 && !std::mem::replace(&mut handles.is_warned_of, true)
        };
        if is_news {
            tracing::warn!(
                project_id = config.settings.api_key.project_id(),
                "two handles with separate caches are in use for one project, and a session that is refreshed through both \
                 is signed out: clone the layer or the configuration, or use `CrossmintAuthLayer::from(auth.clone())`"
            );
        }
        Self(Some(project))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(project) = &self.0 else { return };
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = live.get_mut(project) {
            handles.count -= 1;
            if handles.count == 0 {
                live.remove(project);
            }
        }
    }
}

/// A project's ID, and the base URL of the Crossmint that it is at.
type Project = (Box<str>, Box<str>);

#[derive(Default)]
struct Handles {
    count: usize,
    is_warned_of: bool,
}

static LIVE: Mutex<BTreeMap<Project, Handles>> = Mutex::new(BTreeMap::new());

/// Beyond this many projects, there is no warning: the list must not grow with the number of tenants.
const MAX_PROJECTS: usize = 1024;
