//! The container image: what is in the archive, and that the program works in it, as user 65534 in an
//! otherwise empty root.
//!
//! With the binary of these tests and the libraries that it wants: a static one takes minutes to build,
//! and what is tried here is the recipe.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::net::holds_within;
use super::{copy_binary, skips};

const PROGRAMS: &[&str] =
    &["bash", "tar", "gzip", "sha256sum", "unshare", "chroot", "ldd", "strip", "mknod"];

/// An image with the binary of these tests.
struct Image {
    folder: TempDir,
}

impl Image {
    fn make() -> Self {
        let image = Self { folder: tempfile::tempdir().unwrap() };
        copy_binary(&image.path("binary"));
        // Or there is a minute's work for gzip.
        image.run("strip", |it| it.arg(image.path("binary")));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/container/image.sh");
        image.run("bash", |it| {
            it.arg(script)
                .arg("--binary")
                .args(["binary", "image.tar"].map(|name| image.path(name)))
        });
        fs::create_dir_all(image.path("layout")).unwrap();
        image.run("tar", |it| {
            it.arg("xf").arg(image.path("image.tar")).arg("-C").arg(image.path("layout"))
        });
        image
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn run(&self, program: &str, arguments: impl FnOnce(&mut Command) -> &mut Command) -> String {
        let output = arguments(&mut Command::new(program)).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{program}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path("layout").join(name)).unwrap()).unwrap()
    }

    /// The file that a descriptor is about, which has the digest and the size that are said.
    fn blob(&self, descriptor: &Value) -> String {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let name = format!("blobs/sha256/{digest}");
        let path = self.path("layout").join(&name);
        assert_eq!(fs::metadata(&path).unwrap().len(), descriptor["size"].as_u64().unwrap());
        assert!(self.run("sha256sum", |it| it.arg(&path)).starts_with(digest));
        name
    }

    /// Puts the image's files where a container would find them, and libraries beside them.
    fn unpack(&self) -> PathBuf {
        let root = self.path("root");
        fs::create_dir_all(&root).unwrap();
        let manifest = self.json(&self.blob(&self.json("index.json")["manifests"][0]));
        let layer = self.path("layout").join(self.blob(&manifest["layers"][0]));
        self.run("tar", |it| it.arg("xzf").arg(layer).arg("-C").arg(&root));
        let wanted = self.run("ldd", |it| it.arg(self.path("binary")));
        for library in wanted.split_whitespace().filter(|word| word.starts_with('/')) {
            let place = root.join(library.trim_start_matches('/'));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(library, place).unwrap();
        }
        root
    }
}

/// Runs the program of an image as its first process, as the image's user and with nothing else there.
fn in_container(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["chroot", "--userspec=65534:65534", "--groups="]).arg(root);
    command
        .arg("/hybridwg")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.output().unwrap()
}

#[test]
fn the_image_has_one_program_a_user_without_rights_and_digests_that_are_true() {
    if skips(PROGRAMS) {
        return;
    }
    let image = Image::make();
    let index = image.json("index.json");
    let manifest = image.json(&image.blob(&index["manifests"][0]));
    let config = image.json(&image.blob(&manifest["config"]));
    let expected = serde_json::json!([
        "65534:65534",
        ["PATH=/", "LOG_LEVEL=info"],
        ["/hybridwg"],
        ["up", "--foreground", "--watch", "wg0"],
        "SIGTERM",
    ]);
    let said = ["User", "Env", "Entrypoint", "Cmd", "StopSignal"];
    let said = said.map(|key| config["config"][key].clone());
    assert_eq!(Value::from(said.to_vec()), expected);

    let layer = image.path("layout").join(image.blob(&manifest["layers"][0]));
    let names = image.run("tar", |it| it.arg("tzf").arg(&layer));
    assert_eq!(names, "etc/\netc/wireguard/\nhybridwg\nrun/\nvar/\nvar/run\n");
    let content = format!("gzip -dc {} | sha256sum", layer.display());
    let content = image.run("bash", |it| it.args(["-c", &content]));
    let said = config["rootfs"]["diff_ids"][0].as_str().unwrap();
    assert_eq!(said, format!("sha256:{}", content.split(' ').next().unwrap()));

    // What `docker load` reads, and by what name containerd and podman know it.
    let tag = format!("hybridwg:{}", env!("CARGO_PKG_VERSION"));
    let names = &index["manifests"][0]["annotations"];
    assert_eq!(names["io.containerd.image.name"], format!("docker.io/library/{tag}"));
    assert_eq!(names["org.opencontainers.image.ref.name"], tag);
    let docker = &image.json("manifest.json")[0];
    assert_eq!(docker["RepoTags"][0], tag);
    assert_eq!(docker["Config"], image.blob(&manifest["config"]));
    assert_eq!(docker["Layers"][0], image.blob(&manifest["layers"][0]));
}

#[test]
fn in_the_image_the_program_works_as_a_user_without_rights() {
    if skips(PROGRAMS) {
        return;
    }
    let image = Image::make();
    let root = image.unpack();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let key = in_container(&root, &["genkey"]);
    assert!(key.status.success(), "{}", text(&key.stderr));
    assert_eq!(key.stdout.len(), 45);
    let config = format!("[Interface]\nPrivateKey = {}", text(&key.stdout));
    fs::write(root.join("etc/wireguard/wg0.conf"), config).unwrap();
    let check = in_container(&root, &["check", "/etc/wireguard/wg0.conf"]);
    assert!(text(&check.stdout).contains("note: /dev/net/tun: No such file"), "{check:?}");
    let health = in_container(&root, &["health"]);
    assert_eq!(health.status.code(), Some(1));
    assert_eq!(text(&health.stderr), "hybridwg: no tunnel is up here\n");
}

#[test]
fn u_06_as_the_first_process_without_any_right_it_brings_a_tunnel_up_and_takes_it_down_on_sigterm()
{
    if skips(PROGRAMS) {
        return;
    }
    let image = Image::make();
    let root = image.unpack();
    // As a container engine gives them.
    fs::create_dir_all(root.join("proc")).unwrap();
    fs::create_dir_all(root.join("dev")).unwrap();
    image
        .run("mknod", |it| it.args(["-m", "666"]).arg(root.join("dev/null")).args(["c", "1", "3"]));
    let key = String::from_utf8(in_container(&root, &["genkey"]).stdout).unwrap();
    let config =
        format!("[Interface]\nPrivateKey = {key}Address = 10.10.0.2/32\nMode = rootless\n");

    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child"]);
    command.arg(format!("--mount-proc={}", root.join("proc").display()));
    command.args(["chroot", "--userspec=65534:65534", "--groups="]).arg(&root).arg("/hybridwg");
    // The image's own command, where there is nothing but variables.
    let manifest = image.json(&image.blob(&image.json("index.json")["manifests"][0]));
    let own = &image.json(&image.blob(&manifest["config"]))["config"]["Cmd"];
    command.args(own.as_array().unwrap().iter().map(|word| word.as_str().unwrap()));
    let log = fs::File::create(image.path("log")).unwrap();
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stderr(log);
    command.env("HYBRIDWG_CONFIG", config);
    let mut outside = command.spawn().unwrap();
    let said = || fs::read_to_string(image.path("log")).unwrap_or_default();
    let is_ready = || in_container(&root, &["health"]).status.success();
    if !holds_within(Duration::from_secs(30), is_ready) {
        let _ = outside.kill();
        panic!("it is not ready: {}", said());
    }
    let children = format!("/proc/{0}/task/{0}/children", outside.id());
    let first = fs::read_to_string(children).unwrap().trim().parse().ok().and_then(Pid::from_raw);
    kill_process(first.unwrap(), Signal::TERM).unwrap();
    let has_ended = || matches!(outside.try_wait(), Ok(Some(_)));
    assert!(holds_within(Duration::from_secs(30), has_ended), "{}", said());
    assert!(outside.wait().unwrap().success(), "{}", said());
    assert!(fs::read_dir(root.join("run/wireguard")).is_ok_and(|mut it| it.next().is_none()));
}
