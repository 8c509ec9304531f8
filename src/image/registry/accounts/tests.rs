//! Docker's `config.json` and its helpers, without a registry.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn accounts(text: &str) -> (tempfile::TempDir, Result<Accounts>) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config.json"), text).unwrap();
    let accounts = Accounts::in_directory(directory.path());
    (directory, accounts)
}

fn password(user: &str, secret: &str) -> Option<Credential> {
    Some(Credential::Password { user: user.into(), secret: secret.into() })
}

#[test]
fn entries_are_found_by_all_their_names() {
    let (_directory, accounts) = accounts(
        r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YTpi"},
            "https://plain.example": {"auth": "dTpwOnE="},
            "http://old.example:5000/v1/": {"username": "u", "password": "p"},
            "new.example/v2/": {"identitytoken": "t"},
            "raw.example": {"registrytoken": "r"},
            "empty.example": {},
            "q.example/namespace": {"auth": "YTpi"}
        }}"#,
    );
    let accounts = accounts.unwrap();
    let of = |domain: &str| accounts.of(domain).unwrap();
    assert_eq!(of("docker.io"), password("a", "b"));
    assert_eq!(of("plain.example"), password("u", "p:q"), "a password may hold colons");
    assert_eq!(of("old.example:5000"), password("u", "p"));
    assert_eq!(of("new.example"), Some(Credential::Identity("t".into())));
    assert_eq!(of("raw.example"), Some(Credential::Bearer("r".into())));
    for other in ["empty.example", "old.example", "example", "q.example", "evil-docker.io", "plain.example:443"] {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn malformed_files_are_named_without_their_secrets() {
    for text in ["{", "[]", r#"{"auths": {"x": {"auth": "c2VjcmV0"}}"#] {
        let (_directory, accounts) = accounts(text);
        let said = format!("{:#}", accounts.unwrap_err());
        assert!(said.contains("config.json is malformed") && !said.contains("c2VjcmV0"), "{said}");
    }
    for auth in ["not base64 secret!", "c2VjcmV0"] {
        let (_directory, accounts) = accounts(&json!({ "auths": { "x": { "auth": auth } } }).to_string());
        let said = format!("{:#}", accounts.unwrap().of("x").unwrap_err());
        assert!(said.contains("credentials of x") && !said.contains("secret"), "{said}");
    }
    let (directory, accounts) = accounts(r#"{"auths": {"x": {"identitytoken": "hunter2"}}}"#);
    let accounts = accounts.unwrap();
    assert!(!format!("{accounts:?} {:?}", accounts.of("x")).contains("hunter2"));
    fs::remove_file(directory.path().join("config.json")).unwrap();
    assert_eq!(Accounts::in_directory(directory.path()).unwrap().of("x").unwrap(), None, "no file is fine");
}

#[test]
fn a_login_changes_its_own_entry_only() {
    let (directory, accounts) = accounts(r#"{"psFormat": "x", "auths": {"https://a.example/v1/": {"auth": "YTpi"}}}"#);
    let mut accounts = accounts.unwrap();
    let path = directory.path().join("config.json");
    let real = directory.path().join("real.json");
    fs::rename(&path, &real).unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    let kept = accounts.keep("docker.io", &password("u", "p").unwrap()).unwrap();
    assert_eq!(kept, Kept::File(path.clone()));
    accounts.keep("a.example", &password("c", "d").unwrap()).unwrap();
    let written: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let expected = json!({ "psFormat": "x", "auths": {
        "https://index.docker.io/v1/": { "auth": "dTpw" }, "a.example": { "auth": "Yzpk" } } });
    assert_eq!(written, expected);
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "a link stays a link");
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(accounts.forget("a.example").unwrap() && !accounts.forget("a.example").unwrap());
    assert_eq!(accounts.of("a.example").unwrap(), None);
    assert_eq!(accounts.of("docker.io").unwrap(), password("u", "p"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary stays");
}

#[test]
fn a_helper_that_is_no_name_is_not_run() {
    for name in ["../../evil", "a/b", "a b", "a;b"] {
        let (_directory, accounts) = accounts(&json!({ "credsStore": name }).to_string());
        assert!(accounts.unwrap().of("x").unwrap_err().to_string().contains("no name"), "{name}");
    }
    let (_directory, accounts) = accounts(r#"{"credHelpers": {"x": "surely-not-there"}}"#);
    let accounts = accounts.unwrap();
    let said = accounts.of("x").unwrap_err().to_string();
    assert!(said.contains("docker-credential-surely-not-there: not found"), "{said}");
    assert_eq!(accounts.of("y").unwrap(), None, "it is asked for its own registries alone");
}
