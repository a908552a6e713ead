//! Operators' tokens, which are made without a registry.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use daemon::files::give_to_folders_owner;

use crate::registry::auth::tokens::TOKEN_BYTES;
use crate::registry::auth::{TokenKind, new_token};

/// Makes a token and appends its digest to the operators' file, which is for its owner alone from
/// then on. Returns the id and the token.
pub(super) fn create_operator(name: &str, file: &Path) -> anyhow::Result<(String, String)> {
    let mut random = [0; TOKEN_BYTES];
    aws_lc_rs::rand::fill(&mut random)
        .ok()
        .context("the system hands out no random numbers")?;
    let new = new_token(TokenKind::Operator, &random);
    append(file, &new.operators_line(name))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok((new.token.id.clone(), new.token.reveal()))
}

fn append(file: &Path, line: &str) -> io::Result<()> {
    let is_new = !file.exists();
    let mut open = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)?;
    open.set_permissions(fs::Permissions::from_mode(0o600))?;
    if is_new {
        // Before there is anything in it.
        give_to_folders_owner(&open, file)?;
    }
    let length = open.metadata()?.len();
    let mut text = String::new();
    if length > 0 {
        // A last line that does not end would swallow this one.
        open.seek(SeekFrom::Start(length - 1))?;
        let mut last = [0];
        open.read_exact(&mut last)?;
        if last != *b"\n" {
            text.push('\n');
        }
    }
    text.push_str(line);
    // One write, so that two who append do not mix.
    open.write_all(text.as_bytes())?;
    open.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::auth::BearerToken;
    use crate::registry::auth::operators::OperatorTokens;

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn operators_are_appended_to_a_file_that_routers_take() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operators");
        let (first, token) = create_operator("jane", &file).unwrap();
        assert_eq!(BearerToken::parse(&token).unwrap().id, first);
        assert_eq!(mode(&file), 0o600);
        // Somebody edits it, without an end of line and with another mode.
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains(&token[21..]),
            "the secret stands in the file"
        );
        fs::write(&file, format!("# ours\n{}", text.trim_end())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let (second, _) = create_operator("joe", &file).unwrap();
        assert_ne!(first, second);
        assert_eq!(OperatorTokens::read(&file).unwrap().len(), 2);
    }
}
