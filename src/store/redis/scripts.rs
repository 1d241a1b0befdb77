//! The scripts, which the server runs one at a time. They do what [`MemoryStore`](crate::store::MemoryStore) does.

use std::{fmt::Write as _, sync::OnceLock};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::{Cmd, ServerErrorKind, Value, cmd};

use super::keeper::Keeper;
use crate::store::interface::Unreachable;

/// A script. The server keeps it under its hash, until a restart or `SCRIPT FLUSH`.
pub(super) struct Script {
    text: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    const fn new(text: &'static str) -> Self {
        Self { text, hash: OnceLock::new() }
    }

    /// Runs the script for one key.
    pub(super) async fn run(&self, keeper: &Keeper, key: &str, arguments: &[&[u8]]) -> Result<Value, Unreachable> {
        let reply = keeper.query(&command("EVALSHA", self.hash(), key, arguments)).await?;
        match &reply {
            Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript) => {
                keeper.query(&command("EVAL", self.text, key, arguments)).await
            }
            _ => Ok(reply),
        }
    }

    fn hash(&self) -> &str {
        self.hash.get_or_init(|| {
            let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, self.text.as_bytes());
            digest.as_ref().iter().fold(String::new(), |mut hash, byte| {
                let _ = write!(hash, "{byte:02x}");
                hash
            })
        })
    }
}

fn command(name: &str, script: &str, key: &str, arguments: &[&[u8]]) -> Cmd {
    let mut command = cmd(name);
    command.arg(script).arg(1).arg(key);
    for argument in arguments {
        command.arg(*argument);
    }
    command
}

pub(super) static LOOK: Script =
    Script::new(concat!(include_str!("scripts/prelude.lua"), include_str!("scripts/look.lua")));
pub(super) static CLAIM: Script =
    Script::new(concat!(include_str!("scripts/prelude.lua"), include_str!("scripts/claim.lua")));
pub(super) static FINISH: Script =
    Script::new(concat!(include_str!("scripts/prelude.lua"), include_str!("scripts/finish.lua")));
pub(super) static END: Script =
    Script::new(concat!(include_str!("scripts/prelude.lua"), include_str!("scripts/end.lua")));
pub(super) static DELIVERED: Script =
    Script::new(concat!(include_str!("scripts/prelude.lua"), include_str!("scripts/delivered.lua")));
pub(super) static REVOKE: Script =
    Script::new(concat!(include_str!("scripts/prelude.lua"), include_str!("scripts/revoke.lua")));
