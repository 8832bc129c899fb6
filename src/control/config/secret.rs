//! Keys and passwords that stand outside the configuration file: in a file of their own, a systemd
//! credential or the environment.
//!
//! `PrivateKeyFile`, `PresharedKeyFile` and `passfile=` name them, each the place of one. A file that others
//! may read is refused, unless `any-mode:` before its path says that this is known. What was read
//! is wiped, and no error repeats it.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::file::shared_with_others;
use super::lex::Key;
use super::model::{At, Config};
use crate::crypto::key::{KeyError, PresharedKey, PrivateKey};
use crate::crypto::password::Password;

/// Where one key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    File {
        /// From the folder of the configuration file, unless it begins with `/`.
        path: PathBuf,
        /// It may be readable by others.
        any_mode: bool,
    },
    /// The name of a file in `$CREDENTIALS_DIRECTORY`. [systemd.exec(5)]
    Credential(String),
    /// The name of a variable.
    Environment(String),
}

impl KeySource {
    /// What a value names; `None` if it names nothing, or is a key itself.
    pub fn parse(text: &str) -> Option<Self> {
        if PrivateKey::from_base64(text).is_ok() {
            return None;
        }
        if let Some(name) = text.strip_prefix("env:") {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let is_name = !name.is_empty() && name.chars().all(is_word);
            return is_name.then(|| Self::Environment(name.to_owned()));
        }
        if let Some(name) = text.strip_prefix("credential:") {
            let is_name = !matches!(name, "" | "." | "..") && !name.contains('/');
            return is_name.then(|| Self::Credential(name.to_owned()));
        }
        let (path, any_mode) = match text.strip_prefix("any-mode:") {
            Some(path) => (path.trim_start(), true),
            None => (text, false),
        };
        (!path.is_empty()).then(|| Self::File { path: path.into(), any_mode })
    }

    /// The key there, as `from_base64` takes it.
    fn read<K>(
        &self,
        folder: &Path,
        environment: Environment<'_>,
        from_base64: fn(&str) -> Result<K, KeyError>,
    ) -> Result<K, SecretProblem> {
        let text = self.text(folder, environment)?.ok_or(SecretProblem::NoKey)?;
        from_base64(text.trim_ascii()).map_err(|_| SecretProblem::NoKey)
    }

    /// The password there: all of it but the end of its line.
    fn read_password(
        &self,
        folder: &Path,
        environment: Environment<'_>,
    ) -> Result<Password, SecretProblem> {
        let text = self.text(folder, environment)?.ok_or(SecretProblem::NoPassword)?;
        let line = text.trim_end_matches(['\r', '\n']);
        let is_one_line = !line.contains(['\r', '\n', '\0']);
        Password::new(line).filter(|_| is_one_line).ok_or(SecretProblem::NoPassword)
    }

    /// What stands there; `None` if it is no text, or too long for a secret.
    fn text(
        &self,
        folder: &Path,
        environment: Environment<'_>,
    ) -> Result<Option<Zeroizing<String>>, SecretProblem> {
        match self {
            Self::File { path, any_mode } => read_file(&folder.join(path), *any_mode),
            Self::Credential(name) => {
                let folder = environment("CREDENTIALS_DIRECTORY");
                let folder = PathBuf::from(folder.ok_or(SecretProblem::NoCredentials)?);
                // The service manager has seen to it that nobody else can read them.
                read_file(&folder.join(name), true)
            }
            Self::Environment(name) => {
                let value = environment(name);
                let value = value.ok_or_else(|| SecretProblem::NotSet { name: name.clone() })?;
                Ok(value.into_string().ok().map(Zeroizing::new))
            }
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, any_mode: false } => path.display().fmt(f),
            Self::File { path, any_mode: true } => write!(f, "any-mode:{}", path.display()),
            Self::Credential(name) => write!(f, "credential:{name}"),
            Self::Environment(name) => write!(f, "env:{name}"),
        }
    }
}

/// A key that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {}: {problem}", key.name())]
pub struct SecretError {
    pub file: String,
    /// Of the configuration file, counted from 1.
    pub line: usize,
    pub key: Key,
    pub problem: SecretProblem,
}

/// Why it could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretProblem {
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "{path} can be read by others: `chmod o= {path}` mends it, `any-mode:{path}` accepts it",
        path = .path.display()
    )]
    Exposed { path: PathBuf },
    #[error("there are no credentials: CREDENTIALS_DIRECTORY is not set, LoadCredential= sets it")]
    NoCredentials,
    #[error("the variable {name} is not set")]
    NotSet { name: String },
    #[error("there is no key in it: 44 characters of base64 are expected, and nothing else")]
    NoKey,
    #[error("there is no password in it: one line of 1 to 255 bytes is expected")]
    NoPassword,
}

impl SecretProblem {
    /// There is a file, and this user may not read it.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Reads all keys and passwords that `config`, which stands in `file`, keeps elsewhere, and puts them in.
///
/// # Errors
/// All that could not be had, that of the interface first.
pub fn fetch_keys(config: &mut Config, file: &Path) -> Result<(), Vec<SecretError>> {
    fetch_with(config, file, &|name| env::var_os(name))
}

/// Variables by their names.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

fn fetch_with(
    config: &mut Config,
    file: &Path,
    environment: Environment<'_>,
) -> Result<(), Vec<SecretError>> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let mut errors = Vec::new();
    let texts = config.texts.clone();
    let mut failed = |key, line, problem| {
        let (name, line) = texts.place(line);
        errors.push(SecretError { file: name.to_owned(), line, key, problem });
    };
    if let Some(At { line, value }) = &config.interface.private_key_file {
        match value.read(folder, environment, PrivateKey::from_base64) {
            Ok(key) => config.interface.private_key = Some(key),
            Err(problem) => failed(Key::PrivateKeyFile, *line, problem),
        }
    }
    for peer in &mut config.peers {
        let Some(At { line, value }) = &peer.preshared_key_file else { continue };
        match value.read(folder, environment, PresharedKey::from_base64) {
            Ok(key) => peer.preshared_key = Some(key),
            Err(problem) => failed(Key::PresharedKeyFile, *line, problem),
        }
    }
    for At { line, value } in &mut config.interface.ends.proxies {
        let Some(login) = &mut value.login else { continue };
        let Some(source) = &login.passfile else { continue };
        match source.read_password(folder, environment) {
            Ok(password) => login.password = Some(password),
            Err(problem) => failed(Key::of_proxy(value.kind), *line, problem),
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// `None` if it is no text, or too long.
fn read_file(path: &Path, any_mode: bool) -> Result<Option<Zeroizing<String>>, SecretProblem> {
    /// A longer file is no secret; some are written with a blank or an empty line after it.
    const MAX_BYTES: usize = Password::MAX_BYTES + 2;
    let unreadable = |source| SecretProblem::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    if !any_mode && shared_with_others(path, &file).map_err(unreadable)? != 0 {
        return Err(SecretProblem::Exposed { path: path.to_owned() });
    }
    // Full size at once, because growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES + 1));
    match file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text) {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(unreadable(error)),
        Ok(length) if length <= MAX_BYTES => Ok(Some(text)),
        Ok(_) | Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::control::config::parse;

    const KEY: &str = "GBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBg=";
    const PEER: &str = "oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=";

    /// A folder that others can look into, with files of these modes.
    fn folder(files: &[(&str, &str, u32)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, text, mode) in files {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        folder
    }

    /// What becomes of a file with this `PrivateKeyFile` in `folder`.
    fn fetched(folder: &Path, value: &str) -> Result<Config, String> {
        let text = format!("[Interface]\n#hybridwg: PrivateKeyFile = {value}\n");
        let file = folder.join("wg0.conf");
        let mut config = parse(&text, file.to_str().unwrap()).unwrap().config;
        let environment = |name: &str| match name {
            "CREDENTIALS_DIRECTORY" => Some(folder.as_os_str().to_owned()),
            "WG_KEY" => Some(KEY.into()),
            "WG_WORD" => Some("secret-word".into()),
            _ => None,
        };
        let outcome = fetch_with(&mut config, &file, &environment);
        outcome.map(|()| config).map_err(|errors| errors[0].to_string())
    }

    #[test]
    fn u_23_a_key_comes_from_a_file_a_credential_or_the_environment() {
        let folder = folder(&[("own.key", &format!("{KEY}\n"), 0o600), ("cred", KEY, 0o644)]);
        let absolute = folder.path().join("own.key").display().to_string();
        for value in ["own.key", "./own.key", &absolute, "credential:cred", "env:WG_KEY"] {
            let config = fetched(folder.path(), value).unwrap();
            let expected = Some(PrivateKey::from_base64(KEY).unwrap());
            assert!(config.interface.private_key == expected, "{value}");
        }
    }

    #[test]
    fn u_23_a_key_that_others_can_read_is_refused_unless_that_is_known() {
        let folder = folder(&[("own.key", KEY, 0o644)]);
        let path = folder.path().join("own.key");
        let path = path.display();
        assert_eq!(
            fetched(folder.path(), "own.key").unwrap_err(),
            format!(
                "{dir}/wg0.conf:2: PrivateKeyFile: {path} can be read by others: `chmod o= {path}` \
                 mends it, `any-mode:{path}` accepts it",
                dir = folder.path().display()
            )
        );
        assert!(fetched(folder.path(), "any-mode:own.key").is_ok());
        // Nobody else comes as far as the file.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(fetched(folder.path(), "own.key").is_ok());
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let two = format!("{KEY}\n{KEY}\n");
        let long = "secret-word ".repeat(1000);
        let folder = folder(&[("two", &two, 0o600), ("long", &long, 0o600), ("none", "", 0o600)]);
        for value in ["two", "long", "none", "env:WG_WORD"] {
            let error = fetched(folder.path(), value).unwrap_err();
            assert!(error.contains("there is no key in it"), "{error}");
            assert!(!error.contains("secret-word") && !error.contains(KEY), "{error}");
        }
        let error = fetched(folder.path(), "missing").unwrap_err();
        assert!(
            error.contains("cannot read") && error.contains("/missing: No such file"),
            "{error}"
        );
        let error = fetched(folder.path(), "env:OTHER").unwrap_err();
        assert!(error.ends_with("the variable OTHER is not set"), "{error}");
    }

    #[test]
    fn u_23_the_password_of_a_proxy_is_one_line_and_is_not_repeated() {
        let folder = folder(&[("pw", "open sesame \r\n", 0o600), ("two", "a\nb\n", 0o600)]);
        let fetched = |source: &str| {
            let text = format!("[Interface]\nSocks5 = *:1080 user=ci passfile={source}\n");
            let mut config = parse(&text, "t.conf").unwrap().config;
            let environment = |name: &str| (name == "PW").then(|| "open sesame ".into());
            fetch_with(&mut config, &folder.path().join("t.conf"), &environment)
                .map(|()| config.interface.ends.proxies.remove(0).value.login.unwrap().password)
                .map_err(|errors| errors[0].to_string())
        };
        for source in ["pw", "env:PW"] {
            assert!(fetched(source).unwrap().unwrap().is(b"open sesame "), "{source}");
        }
        assert_eq!(
            fetched("two").unwrap_err(),
            "t.conf:2: Socks5: there is no password in it: one line of 1 to 255 bytes is expected"
        );
    }

    #[test]
    fn all_keys_that_could_not_be_had_show_at_once() {
        let text = format!(
            "[Interface]\n#hybridwg: PrivateKeyFile = credential:a\n[Peer]\nPublicKey = {PEER}\n\
             #hybridwg: PresharedKeyFile = env:B\n"
        );
        let mut config = parse(&text, "t.conf").unwrap().config;
        let errors = fetch_with(&mut config, Path::new("t.conf"), &|_| None).unwrap_err();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "t.conf:2: PrivateKeyFile: there are no credentials: CREDENTIALS_DIRECTORY is not \
                 set, LoadCredential= sets it",
                "t.conf:5: PresharedKeyFile: the variable B is not set",
            ]
        );
    }
}
