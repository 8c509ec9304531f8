//! Who the container's process is: user, groups and home, looked up in the container's own files.
//!
//! The host's accounts mean nothing inside, so neither getpwnam(3) nor NSS is ever asked. A number is a user
//! id whatever passwd says about a user of that name (CVE-2016-3697); the entry with that id still gives
//! group, home and supplementary groups, as in Docker.

use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::Errno;

use super::rooted;
use crate::error::Failure;

/// passwd(5) and group(5) of an image are read up to here, in bytes.
const FILE_LIMIT: u64 = 8 << 20;
/// Ids go up to here: -1 as an unsigned number means "unchanged" to chown(2) and setresuid(2).
const MAX_ID: u32 = i32::MAX as u32;

/// A process's credentials inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// What setgroups(2) is given. Holds the primary group: without it a process could drop a group that
    /// permissions are denied to (CVE-2022-36109).
    pub groups: Vec<u32>,
    /// Home directory; `/` when unknown.
    pub home: String,
    /// The user's name, when the container knows one.
    pub name: Option<String>,
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// The identity that `user` (`""`, `user`, `user:group`, each a name or a number) has in the container whose
/// root is `root`, with `extra` supplementary groups (`--group-add`).
///
/// Without a group the user's own counts, with the supplementary groups of `/etc/group`; a group that is
/// named replaces all of them.
///
/// # Errors
/// A name that passwd or group does not list, or an id above 2147483647. A file that is missing, malformed
/// or not a regular file matters only when a name has to be found in it.
pub fn resolve(root: BorrowedFd<'_>, user: &str, extra: &[String]) -> Result<Identity> {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    let asked_uid = if user.is_empty() { Some(0) } else { id(user)? };

    let accounts = Table::read(root, "etc/passwd");
    let account = accounts.lines().filter_map(parse_account).find(|account| match asked_uid {
        Some(uid) => account.uid == uid,
        None => account.name == user,
    });
    let (uid, mut gid, home, name) = match (account, asked_uid) {
        (Some(account), _) => (account.uid, account.gid, account.home, Some(account.name)),
        (None, Some(uid)) => (uid, 0, String::new(), None),
        (None, None) => return Err(accounts.no_match("user", user, "passwd").into()),
    };
    let home = if home.is_empty() { "/".to_owned() } else { home };

    let table = Table::read(root, "etc/group");
    let mut groups = Vec::new();
    if group.is_empty() {
        if let Some(name) = &name {
            let mine = |group: &Group| group.members.iter().any(|member| member == name);
            groups = table.lines().filter_map(parse_group).filter(mine).map(|group| group.gid).collect();
        }
    } else {
        gid = table.gid(group)?;
    }
    for name in extra {
        groups.push(table.gid(name)?);
    }

    // The primary group first; each group once, because setgroups(2) has an upper bound.
    groups.insert(0, gid);
    let mut seen = std::collections::HashSet::new();
    groups.retain(|gid| seen.insert(*gid));
    Ok(Identity { uid, gid, groups, home, name })
}

/// `text` as an id; `None` when it is not a number.
fn id(text: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        _ => Err(Failure::engine(format!("uids and gids must be in range 0-{MAX_ID}: {text}")).into()),
    }
}

/// A passwd or group file; why there is none is kept for whoever needs a name of it.
struct Table {
    contents: String,
    missing: Option<Errno>,
}

impl Table {
    fn read(root: BorrowedFd<'_>, path: &str) -> Self {
        match rooted::read(root, Path::new(path), FILE_LIMIT) {
            // Some other user's comment field may well be Latin-1.
            Ok(bytes) => Table { contents: String::from_utf8_lossy(&bytes).into_owned(), missing: None },
            Err(errno) => Table { contents: String::new(), missing: Some(errno) },
        }
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        self.contents.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    }

    fn gid(&self, text: &str) -> Result<u32> {
        if let Some(gid) = id(text).with_context(|| format!("unable to find group {text}"))? {
            return Ok(gid);
        }
        let found = self.lines().filter_map(parse_group).find(|group| group.name == text);
        found.map(|group| group.gid).ok_or_else(|| self.no_match("group", text, "group").into())
    }

    fn no_match(&self, kind: &str, name: &str, file: &str) -> Failure {
        let mut failure = Failure::engine(format!("unable to find {kind} {name}: no matching entries in {file} file"))
            .with_hint(format!("give a number, or add the {kind} to /etc/{file} of the image"));
        match self.missing {
            None => {}
            Some(Errno::NOENT) => failure.causes.push(format!("the image has no /etc/{file}")),
            Some(Errno::INVAL) => failure.causes.push(format!("/etc/{file} of the image is not a regular file")),
            Some(Errno::FBIG) => {
                failure.causes.push(format!("/etc/{file} of the image is larger than {FILE_LIMIT} bytes"));
            }
            Some(errno) => failure.causes.push(format!("read /etc/{file} of the image: {errno}")),
        }
        failure
    }
}

/// `name:password:uid:gid:comment:home:shell`; `None` for a malformed line, never a guess of uid 0.
fn parse_account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = fields.nth(1)?.parse().ok().filter(|id| *id <= MAX_ID)?;
    let gid = fields.next()?.parse().ok().filter(|id| *id <= MAX_ID)?;
    // A home that no environment can hold is none.
    let home = fields.nth(1).filter(|home| !home.contains('\0')).unwrap_or_default();
    Some(Account { name: name.to_owned(), uid, gid, home: home.to_owned() })
}

/// `name:password:gid:member,member`.
fn parse_group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = fields.nth(1)?.parse().ok().filter(|id| *id <= MAX_ID)?;
    let members = fields.next().unwrap_or_default();
    let members = members.split(',').map(|member| member.trim().to_owned()).filter(|m| !m.is_empty()).collect();
    Some(Group { name: name.to_owned(), gid, members })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n\
        broken:x:none:0::/broken:\n\
        short:x\n\
        app:x:1000:1001:App:/home/app:/bin/sh\r\n\
        7:x:2000:2000::/seven:\n\
        bare:x:3000:3000\n\
        huge:x:4294967295:0::/huge:\n";
    const GROUP: &str = "root:x:0:root\nwheel:x:10:root,app\napp:x:1001:\nstaff:x:50: app \nbad:x:x:app\n";

    struct Root {
        dir: tempfile::TempDir,
        fd: fs::File,
    }

    impl Root {
        fn empty() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("etc")).unwrap();
            let fd = fs::File::open(dir.path()).unwrap();
            Root { dir, fd }
        }

        fn filled() -> Self {
            let root = Root::empty();
            fs::write(root.dir.path().join("etc/passwd"), PASSWD).unwrap();
            fs::write(root.dir.path().join("etc/group"), GROUP).unwrap();
            root
        }

        fn resolve(&self, user: &str) -> Result<Identity> {
            resolve(self.fd.as_fd(), user, &[])
        }
    }

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str, name: Option<&str>) -> Identity {
        Identity { uid, gid, groups: groups.to_vec(), home: home.into(), name: name.map(str::to_owned) }
    }

    #[test]
    fn names_numbers_and_nothing_resolve_as_in_docker() {
        let root = Root::filled();
        let app = |groups: &[u32]| identity(1000, groups[0], groups, "/home/app", Some("app"));
        assert_eq!(root.resolve("").unwrap(), identity(0, 0, &[0, 10], "/root", Some("root")));
        assert_eq!(root.resolve("app").unwrap(), app(&[1001, 10, 50]));
        assert_eq!(root.resolve("1000").unwrap(), app(&[1001, 10, 50]));
        assert_eq!(root.resolve("app:wheel").unwrap(), app(&[10]));
        assert_eq!(root.resolve("1000:77").unwrap(), app(&[77]));
        assert_eq!(root.resolve("4242").unwrap(), identity(4242, 0, &[0], "/", None));
        assert_eq!(root.resolve("bare").unwrap(), identity(3000, 3000, &[3000], "/", Some("bare")));
    }

    #[test]
    fn a_number_is_an_id_whatever_passwd_says() {
        let root = Root::filled();
        assert_eq!(root.resolve("7").unwrap(), identity(7, 0, &[0], "/", None));
    }

    #[test]
    fn groups_are_added_by_name_and_number_once_each() {
        let root = Root::filled();
        let extra = ["staff".to_owned(), "99".to_owned(), "wheel".to_owned()];
        let found = resolve(root.fd.as_fd(), "app", &extra).unwrap();
        assert_eq!(found.groups, [1001, 10, 50, 99]);
        let error = resolve(root.fd.as_fd(), "", &["nobody".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "unable to find group nobody: no matching entries in group file");
    }

    #[test]
    fn unknown_names_and_malformed_entries_are_dockers_errors() {
        let root = Root::filled();
        for name in ["nobody", "broken", "short", "huge", "a b", "root\0"] {
            let text = root.resolve(name).unwrap_err().to_string();
            assert_eq!(text, format!("unable to find user {name}: no matching entries in passwd file"));
        }
        let text = root.resolve("app:nope").unwrap_err().to_string();
        assert_eq!(text, "unable to find group nope: no matching entries in group file");
    }

    #[test]
    fn ids_out_of_range_are_refused() {
        let root = Root::filled();
        for user in ["2147483648", "4294967295", "-1", "99999999999999999999", "0:2147483648"] {
            let text = format!("{:#}", root.resolve(user).unwrap_err());
            assert!(text.contains("range 0-2147483647"), "{user}: {text}");
        }
        assert_eq!(root.resolve("2147483647").unwrap().uid, MAX_ID);
    }

    #[test]
    fn numbers_need_no_files_and_names_say_what_is_missing() {
        let root = Root::empty();
        assert_eq!(root.resolve("").unwrap(), identity(0, 0, &[0], "/", None));
        assert_eq!(root.resolve("5:6").unwrap(), identity(5, 6, &[6], "/", None));
        let text = root.resolve("app").unwrap_err().to_string();
        assert!(text.ends_with("the image has no /etc/passwd"), "{text}");
    }

    #[test]
    fn a_fifo_hangs_nobody_and_links_stay_inside() {
        let root = Root::filled();
        let passwd = root.dir.path().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(root.resolve("").unwrap().home, "/");
        let text = root.resolve("app").unwrap_err().to_string();
        assert!(text.contains("not a regular file"), "{text}");

        // An absolute link means the container's file, never the host's.
        fs::remove_file(&passwd).unwrap();
        fs::write(root.dir.path().join("real"), PASSWD).unwrap();
        symlink("/../../real", &passwd).unwrap();
        assert_eq!(root.resolve("app").unwrap().uid, 1000);
    }

    #[test]
    fn an_endless_file_is_not_read() {
        let root = Root::filled();
        let passwd = root.dir.path().join("etc/passwd");
        fs::File::options().write(true).open(&passwd).unwrap().set_len(FILE_LIMIT + 1).unwrap();
        let text = root.resolve("app").unwrap_err().to_string();
        assert!(text.contains("larger than"), "{text}");
    }
}
