//! Which file an argument of `up` means, reading it and replacing it.
//!
//! The interface is named by the file as it was typed; permissions are those of the file that a
//! symbolic link leads to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use zeroize::Zeroizing;

use super::edit::{State, update};
use super::parse::parse_known;
use super::strip::strip;
use super::{ConfigError, Text, TextKind, Warning, Written, parse_all};
use crate::control::uapi::is_interface_name;

/// Where a bare interface name is looked for.
pub const DIRECTORY: &str = "/etc/wireguard";

/// 100,000 peers take about 20 MiB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// An interface and its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    pub interface: String,
    pub path: PathBuf,
}

/// Why an argument names no file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocateError {
    #[error("`{}' does not exist", .0.display())]
    Missing(PathBuf),
    #[error("`{name}' does not exist: neither ./{name} nor {}", .path.display())]
    MissingEither { name: String, path: PathBuf },
    #[error("the config file must be a valid interface name, followed by .conf")]
    Name,
}

impl Located {
    /// What an operator types for this file where others stand in `directory`.
    pub fn argument(&self, directory: &Path) -> String {
        match self.path == directory.join(format!("{}.conf", self.interface)) {
            true => self.interface.clone(),
            false => self.path.display().to_string(),
        }
    }
}

/// The variable that may have the text of a file, for containers.
const VARIABLE: &str = "HYBRIDWG_CONFIG";
/// What stands for it in the place of a path.
const VARIABLE_PATH: &str = "env:HYBRIDWG_CONFIG";

/// What stands for standard input.
const STANDARD_INPUT: &str = "-";
/// The interface whose file is given there.
const NAMELESS: &str = "wg0";

/// What an argument means that names no file: `-`, or an interface while the variable
/// `HYBRIDWG_CONFIG` has a text.
pub fn given(argument: &str) -> Option<Located> {
    let (interface, path) = if argument == STANDARD_INPUT {
        (NAMELESS, STANDARD_INPUT)
    } else {
        let is_set = std::env::var_os(VARIABLE).is_some_and(|text| !text.is_empty());
        (Some(argument).filter(|name| is_set && is_interface_name(name))?, VARIABLE_PATH)
    };
    Some(Located { interface: interface.to_owned(), path: path.into() })
}

/// Finds the file: a path is itself; a word ending in `.conf` that exists in `current` is that
/// file; any other word is an interface name with its file in `directory`.
///
/// # Errors
/// If the file does not exist or its name is not that of an interface.
pub fn locate(argument: &str, current: &Path, directory: &Path) -> Result<Located, LocateError> {
    let is_path = argument.contains('/');
    let here = beside(argument, current);
    let is_conf = argument.ends_with(".conf");
    if is_path || (is_conf && here.is_file()) {
        // A missing file is told before a bad name, as the likelier slip.
        return if is_missing(&here) { Err(LocateError::Missing(here)) } else { of_path(here) };
    }
    if !is_interface_name(argument) {
        return Err(LocateError::Name);
    }
    let path = directory.join(format!("{argument}.conf"));
    match is_missing(&path) {
        false => Ok(Located { interface: argument.to_owned(), path }),
        true if is_conf => Err(LocateError::MissingEither { name: argument.to_owned(), path }),
        true => Err(LocateError::Missing(path)),
    }
}

/// Of what stands in a folder that may not be entered, whoever reads it is told.
fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

/// Where a file is made that need not exist: a path, or a word ending in `.conf`, is itself; any
/// other word is an interface name with its file in `directory`.
///
/// # Errors
/// [`LocateError::Name`] if it would not be named after an interface.
pub fn place(argument: &str, current: &Path, directory: &Path) -> Result<Located, LocateError> {
    if argument.contains('/') || argument.ends_with(".conf") {
        return of_path(beside(argument, current));
    }
    of_path(directory.join(format!("{argument}.conf")))
}

/// Through its components, which drops a `./` that would only lengthen messages.
fn beside(argument: &str, folder: &Path) -> PathBuf {
    folder.join(argument).components().collect()
}

fn of_path(path: PathBuf) -> Result<Located, LocateError> {
    let stem = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".conf"));
    let interface = stem.filter(|stem| is_interface_name(stem)).map(str::to_owned);
    interface.map(|interface| Located { interface, path }).ok_or(LocateError::Name)
}

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read {}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is larger than {} MiB", .path.display(), MAX_FILE_BYTES >> 20)]
    TooLarge { path: PathBuf },
    #[error("faults in {}", with_faults(.errors))]
    Faulty { errors: Vec<ConfigError> },
    #[error("{}:{line}: the text is not UTF-8", .path.display())]
    NotText { path: PathBuf, line: usize },
    #[error("{} has its keys and peers in {}, and that file is not written to", .path.display(), .named.display())]
    Elsewhere { path: PathBuf, named: PathBuf },
    #[error("the variable {name} is not set")]
    NotSet { name: String },
}

impl LoadError {
    /// There is a file, and this user may not read it.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// All texts that have some, in their order: the file, one that it names, lines beside it.
fn with_faults(errors: &[ConfigError]) -> String {
    let mut names: Vec<&str> = errors.iter().map(|error| &*error.file).collect();
    names.dedup();
    names.join(" and ")
}

/// Reads and parses a file. Its warnings begin with that of a file which others can read.
///
/// # Errors
/// If it cannot be read, or has faults.
pub fn load(path: &Path) -> Result<Written, LoadError> {
    load_with(path, &[])
}

/// As [`load`], with lines of an `[Interface]` beside the file.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, beside: &[Lines]) -> Result<Written, LoadError> {
    let sources = Sources::read(path)?;
    let mut written = sources.parse(beside).map_err(|errors| LoadError::Faulty { errors })?;
    for file in sources.exposed() {
        let text = format!("`{file}' is world accessible");
        written.warnings.insert(0, Warning { file, line: None, text });
    }
    Ok(written)
}

/// As [`load`], with the text that was parsed.
///
/// # Errors
/// As [`load`].
pub fn load_text(path: &Path) -> Result<(Zeroizing<String>, Written), LoadError> {
    let written = load(path)?;
    let (text, _) = read(path)?;
    Ok((text, written))
}

/// Lines of an `[Interface]` that do not stand in the file, and what messages call them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    pub name: String,
    pub text: String,
}

/// The texts of a file: its own, and that of the one which `WGConfig` names in it.
#[derive(Debug)]
pub struct Sources(Vec<Source>);

/// One of them. It holds keys.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    text: Zeroizing<String>,
    is_exposed: bool,
}

impl Source {
    fn read(path: PathBuf) -> Result<Self, LoadError> {
        let (text, is_exposed) = read(&path)?;
        Ok(Self { path, text, is_exposed })
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

impl Sources {
    /// # Errors
    /// One of them cannot be read.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let first = Source::read(path.to_owned())?;
        let named = super::parse::wireproxy::wg_config(&first.text);
        let mut sources = vec![first];
        if let Some(named) = named {
            let folder = path.parent().unwrap_or(Path::new("/"));
            sources.push(Source::read(folder.join(named))?);
        }
        Ok(Self(sources))
    }

    /// # Errors
    /// All faults of all texts.
    pub fn parse(&self, beside: &[Lines]) -> Result<Written, Vec<ConfigError>> {
        let names: Vec<String> = self.0.iter().map(Source::name).collect();
        let files = self.0.iter().zip(&names);
        let files = files.map(|(it, name)| Text { name, text: &it.text, kind: TextKind::File });
        let lines = beside.iter();
        let lines = lines.map(|it| Text { name: &it.name, text: &it.text, kind: TextKind::Lines });
        let mut written = parse_all(&files.chain(lines).collect::<Vec<_>>())?;
        written.config.beside = beside.to_vec();
        Ok(written)
    }

    /// The text of the file itself.
    pub fn text(&self) -> &Zeroizing<String> {
        &self.0[0].text
    }

    /// The files that others can read.
    pub fn exposed(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter(|source| source.is_exposed).map(Source::name)
    }
}

/// The text of a file without what only wg-quick and we understand, as `wg setconf` takes it.
/// Comments stay.
///
/// # Errors
/// As [`load`].
pub fn stripped(path: &Path) -> Result<Zeroizing<String>, LoadError> {
    let sources = Sources::read(path)?;
    sources.parse(&[]).map_err(|errors| LoadError::Faulty { errors })?;
    let stripped: Vec<_> = sources.0.iter().map(|source| strip(&source.text)).collect();
    // Full size at once, because growing would leave copies of keys behind.
    let size = stripped.iter().map(|text| text.len()).sum();
    let mut text = Zeroizing::new(String::with_capacity(size));
    stripped.iter().for_each(|part| text.push_str(part));
    Ok(text)
}

/// What a file would have to say about `state`: its text, changed where that differs. `None` if
/// nothing does.
///
/// # Errors
/// As [`load`], but lines that are unknown stay as they are.
pub fn updated(path: &Path, state: &State) -> Result<Option<Zeroizing<String>>, LoadError> {
    let (text, _) = read(path)?;
    let config = parse_known(&text, &path.display().to_string())
        .map_err(|errors| LoadError::Faulty { errors })?;
    if let Some(named) = config.wg_config {
        let (path, named) = (path.to_owned(), named.value);
        return Err(LoadError::Elsewhere { path, named });
    }
    let updated = update(&text, &config, state);
    Ok((*updated != *text).then_some(updated))
}

/// Puts a text in the place of a file, as a whole or not at all. It may hold keys: nobody but the
/// owner of the old one can read it. Where `path` is a symbolic link, what it leads to is replaced.
///
/// # Errors
/// The folder cannot be written to.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let owner = fs::metadata(&path)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let new = path.with_file_name(name);
    // One that somebody has prepared, or that was left by a save that was killed, is not used.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        chown(&new, Some(owner.uid()), Some(owner.gid()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))?;
    // So that the new name outlives a loss of power as well.
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Makes a file that only its owner can read. It may hold keys.
///
/// # Errors
/// It exists ([`io::ErrorKind::AlreadyExists`]), or the folder cannot be written to.
pub fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let outcome = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    outcome.inspect_err(|_| drop(fs::remove_file(path)))
}

/// The folder of a file, kept from others who change files in it in the same way.
#[derive(Debug)]
pub struct Folder {
    _lock: File,
}

impl Folder {
    /// Waits until nobody else holds it. It is let go when dropped.
    ///
    /// # Errors
    /// The folder of `path` cannot be opened.
    pub fn lock(path: &Path) -> io::Result<Self> {
        let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
        folder.lock()?;
        Ok(Self { _lock: folder })
    }
}

/// The text, and whether others can read a secret in it, or write it.
///
/// # Errors
/// If it cannot be read, or is no text.
pub fn read(path: &Path) -> Result<(Zeroizing<String>, bool), LoadError> {
    if path == Path::new(VARIABLE_PATH) {
        let name = VARIABLE.to_owned();
        let text = std::env::var(VARIABLE).map_err(|_| LoadError::NotSet { name })?;
        return Ok((Zeroizing::new(text), false));
    }
    if path == Path::new(STANDARD_INPUT) {
        return Ok((standard_input()?, false));
    }
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let shared = shared_with_others(path, &file).map_err(unreadable)?;
    // The text holds a key: its buffer is wiped, and large enough not to move while it fills.
    let size = file.metadata().map_err(unreadable)?.len().min(MAX_FILE_BYTES);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 4096);
    let outcome = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid_up_to = error.utf8_error().valid_up_to();
        let bytes = Zeroizing::new(error.into_bytes());
        1 + bytes[..valid_up_to].iter().filter(|&&byte| byte == b'\n').count()
    });
    let text = text.map(Zeroizing::new);
    outcome.map_err(unreadable)?;
    match text {
        Ok(text) if text.len() as u64 > MAX_FILE_BYTES => {
            Err(LoadError::TooLarge { path: path.to_owned() })
        }
        Ok(text) => {
            let may_write = shared & 0o002 != 0;
            let is_exposed = may_write || (shared != 0 && holds_secret(&text));
            Ok((text, is_exposed))
        }
        Err(line) => Err(LoadError::NotText { path: path.to_owned(), line }),
    }
}

/// Read once, however often it is asked for: `up` in the foreground ends with a `down`.
fn standard_input() -> Result<Zeroizing<String>, LoadError> {
    static TEXT: OnceLock<Zeroizing<String>> = OnceLock::new();
    if let Some(text) = TEXT.get() {
        return Ok(text.clone());
    }
    let path = PathBuf::from(STANDARD_INPUT);
    let mut text = Zeroizing::new(String::with_capacity(64 << 10));
    match io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_string(&mut text) {
        Err(source) => Err(LoadError::Unreadable { path, source }),
        Ok(size) if size as u64 > MAX_FILE_BYTES => Err(LoadError::TooLarge { path }),
        Ok(_) => Ok(TEXT.get_or_init(|| text).clone()),
    }
}

/// The permissions for others that file and folder share, as wg-quick asks.
pub(super) fn shared_with_others(path: &Path, file: &File) -> io::Result<u32> {
    let real = fs::canonicalize(path)?;
    let folder = fs::metadata(real.parent().unwrap_or(Path::new("/")))?;
    Ok(file.metadata()?.permissions().mode() & folder.permissions().mode() & 0o007)
}

/// Also in a comment, and in a file with faults. `$NAME` is where a secret of wireproxy's is.
fn holds_secret(text: &str) -> bool {
    const BLANK: [char; 2] = [' ', '\t'];
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    ["privatekey", "presharedkey", "password"].iter().any(|name| {
        lower.match_indices(name).any(|(start, _)| {
            let behind = lower[start + name.len()..].trim_start_matches(BLANK);
            let value = behind.strip_prefix('=').map(|value| value.trim_start_matches(BLANK));
            value.is_some_and(|value| !value.starts_with('$') || value.starts_with("$$"))
        })
    })
}
