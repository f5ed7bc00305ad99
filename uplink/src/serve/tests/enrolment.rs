//! One-time codes over real sockets: what works, and each way in which it does not.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::stranger::Stranger;
use super::vault::{Backend, Vault, new_code};
use crate::{
    CertificateAuthority, EnrollError, EnrolmentCode, FileError, RedeemError, StateError, enroll,
};

#[tokio::test]
async fn a_code_works_once_and_the_identity_is_private() {
    let dir = tempfile::tempdir().expect("writable");
    let ca = dir.path().join("ca");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&ca, &vault, None, |_| {});
    let code = new_code(&ca, &vault, backend.address, "acme").to_string();
    let state = dir.path().join("state");
    let enrolled = enroll(&code, &state).await.expect("the code is good");
    assert_eq!(enrolled.member.as_str(), "acme");
    assert_eq!(enrolled.backend, backend.address.to_string());
    for name in ["identity/sensor.key", "identity/sensor.pem", "identity/identity.json"] {
        let mode = std::fs::metadata(state.join(name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    assert!(!state.join("enrolling.key").exists());
    assert!(matches!(enroll(&code, &state).await, Err(EnrollError::AlreadyEnrolled { .. })));
    let other = enroll(&code, &dir.path().join("other")).await;
    assert!(matches!(other, Err(EnrollError::CodeRefused)), "{other:?}");
    let totals = backend.end();
    assert_eq!((totals.enrolled, totals.enrolments_refused), (1, 1));
}

#[tokio::test]
async fn an_enrolment_whose_answer_was_lost_can_be_repeated() {
    let dir = tempfile::tempdir().expect("writable");
    let ca = dir.path().join("ca");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&ca, &vault, None, |_| {});
    let code = new_code(&ca, &vault, backend.address, "acme").to_string();
    let state = dir.path().join("state");
    let first = enroll(&code, &state).await.expect("the code is good");
    // As it is when the answer did not arrive: the key is there, the identity is not.
    std::fs::rename(state.join("identity/sensor.key"), state.join("enrolling.key")).expect("there");
    std::fs::remove_dir_all(state.join("identity")).expect("there");
    let second = enroll(&code, &state).await.expect("the same key may use the code again");
    assert_eq!(first, second);
    backend.end();
}

#[tokio::test]
async fn each_failure_is_told_apart_and_leaves_no_identity() {
    let dir = tempfile::tempdir().expect("writable");
    let ca = dir.path().join("ca");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&ca, &vault, None, |_| {});
    let state = dir.path().join("state");
    let pin = CertificateAuthority::load(&ca).expect("made by the backend").pin();
    let address = backend.address.to_string();

    let mistyped = enroll("SW1-00000-00000", &state).await;
    assert!(matches!(mistyped, Err(EnrollError::Code(_))), "{mistyped:?}");
    let unknown = EnrolmentCode::new(&address, pin).expect("valid").to_string();
    let unknown = enroll(&unknown, &state).await;
    assert!(matches!(unknown, Err(EnrollError::CodeRefused)), "{unknown:?}");
    let expired = EnrolmentCode::new(&address, pin).expect("valid");
    vault.add_code(&expired, "acme", true);
    let expired = enroll(&expired.to_string(), &state).await;
    assert!(matches!(expired, Err(EnrollError::CodeRefused)), "{expired:?}");
    // Somebody else at the backend's address: the secret is not sent.
    let impostor = EnrolmentCode::new(&address, [0; 32]).expect("valid");
    vault.add_code(&impostor, "acme", false);
    let wrong = enroll(&impostor.to_string(), &state).await;
    assert!(matches!(wrong, Err(EnrollError::WrongBackend { .. })), "{wrong:?}");
    assert!(vault.contents().codes[&impostor.secret_hash()].used.is_none());
    assert!(!state.join("identity").exists());
    let totals = backend.end();
    assert_eq!((totals.enrolments_refused, totals.handshakes_failed), (2, 1));
}

#[tokio::test]
async fn unknown_expired_and_used_codes_look_the_same_from_outside_and_count_as_guesses() {
    let dir = tempfile::tempdir().expect("writable");
    let ca = dir.path().join("ca");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&ca, &vault, None, |options| options.wrong_codes_max = 3);
    let used = new_code(&ca, &vault, backend.address, "acme");
    enroll(&used.to_string(), &dir.path().join("state")).await.expect("the code is good");
    let unknown = EnrolmentCode::new(used.address(), used.pin()).expect("valid");
    let expired = EnrolmentCode::new(used.address(), used.pin()).expect("valid");
    vault.add_code(&expired, "acme", true);
    let good = new_code(&ca, &vault, backend.address, "acme");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("random");
    let request = rcgen::CertificateParams::default().serialize_request(&key).expect("a request");
    let mut answers = Vec::new();
    for code in [&unknown, &expired, &used, &good] {
        let config = crate::tls::enrolment_client(code.pin()).expect("nothing to go wrong");
        let stranger = Stranger::connect(config, backend.address).await.expect("all may try");
        let message = crate::wire::enrol(code.secret(), request.der());
        answers.push(stranger.ask(&message).await.expect("an answer"));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    // After three of these the fourth, which is good, has to wait; and is not used up by it.
    assert_ne!(answers[0], answers[3]);
    assert!(vault.contents().codes[&good.secret_hash()].used.is_none());
    let why = vault.contents().enrolments_refused.clone();
    assert_eq!(why, [RedeemError::Unknown, RedeemError::Expired, RedeemError::Used]);
    let totals = backend.end();
    assert_eq!((totals.enrolments_refused, totals.enrolments_limited), (3, 1));
}

#[tokio::test]
async fn guessing_codes_is_slowed_down() {
    let dir = tempfile::tempdir().expect("writable");
    let ca = dir.path().join("ca");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&ca, &vault, None, |options| options.wrong_codes_max = 2);
    let state = dir.path().join("state");
    let good = new_code(&ca, &vault, backend.address, "acme");
    for _ in 0..2 {
        let guess = EnrolmentCode::new(good.address(), good.pin()).expect("valid").to_string();
        assert!(matches!(enroll(&guess, &state).await, Err(EnrollError::CodeRefused)));
    }
    let limited = enroll(&good.to_string(), &state).await;
    assert!(matches!(limited, Err(EnrollError::TooManyTries(_))), "{limited:?}");
    assert_eq!(backend.end().enrolments_limited, 1);
}

#[tokio::test]
async fn a_state_folder_that_is_in_use_or_open_to_others_is_refused() {
    let dir = tempfile::tempdir().expect("writable");
    let ca = dir.path().join("ca");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&ca, &vault, None, |_| {});
    let state = dir.path().join("state");
    let code = new_code(&ca, &vault, backend.address, "acme").to_string();
    enroll(&code, &state).await.expect("the code is good");
    let options = crate::OutboxOptions {
        state_dir: state.clone(),
        spool_bytes_max: 1 << 20,
        object_sha256: [0; 32],
        sensor_version: String::new(),
        now_ms: 0,
    };
    let outbox = crate::Outbox::open(options.clone()).expect("enrolled");
    let error = crate::Outbox::open(options.clone()).expect_err("one process at a time");
    let pid = std::process::id();
    assert!(error.to_string().ends_with(&format!("is in use by process {pid}")), "{error}");
    let spool = outbox.spool();
    drop(outbox);
    assert!(crate::Outbox::open(options.clone()).is_err(), "the delivery still has the spool");
    drop(spool);

    let key = state.join("identity/sensor.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).expect("own file");
    let error = crate::Outbox::open(options.clone()).expect_err("others may read the key");
    let told = format!("`chmod 0600 {}`, and find out who has", key.display());
    assert!(error.to_string().contains("has mode 0640, so that others may use it"), "{error}");
    assert!(error.to_string().ends_with(&told), "{error}");
    let crate::OutboxError::State(StateError::File(FileError::Mode { mode, .. })) = error else {
        unreachable!("its text was checked before")
    };
    assert_eq!(mode, 0o640);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("own file");
    for mode in [0o720, 0o777] {
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode))
            .expect("own folder");
        let error = crate::Outbox::open(options.clone()).expect_err("others may change the folder");
        let told = format!("has mode {mode:04o}, so that others may use it: `chmod 0700");
        assert!(error.to_string().contains(&told), "{error}");
    }
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).expect("own folder");
    let identity = state.join("identity");
    std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o770))
        .expect("own folder");
    let error = crate::Outbox::open(options.clone()).expect_err("others may exchange the key");
    assert!(error.to_string().contains("/identity has mode 0770"), "{error}");
    let error = crate::identity_card(&state).expect_err("nor is it shown");
    assert!(error.to_string().contains("/identity has mode 0770"), "{error}");
    std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o700))
        .expect("own folder");
    crate::Outbox::open(options.clone()).expect("others may look into the folder");
    let nobody = crate::OutboxOptions { state_dir: dir.path().join("empty"), ..options };
    let error = crate::Outbox::open(nobody).expect_err("nobody has enrolled there");
    assert!(error.to_string().contains("this sensor is not enrolled"), "{error}");
    assert!(!dir.path().join("empty").exists(), "only an enrolment makes a folder");
    backend.end();
}
