//! A one-time code works once, in time, for one key.

use anyhow::Result;
use uplink::{Intake, RedeemError};

use crate::lab::Lab;

const HASH: [u8; 32] = [1; 32];
const KEY: [u8; 32] = [2; 32];

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_redeemed_once_and_again_only_by_the_same_key() -> Result<()> {
    let lab = Lab::new().await?;
    let database = lab.database().await?;
    let member = database.member("town-hall").await?.id;
    database.add_code(&member, HASH, 1_000, 2_000).await?;

    let unknown = database.redeem([9; 32], KEY, 1_500).await;
    assert_eq!(unknown, Err(RedeemError::Unknown));
    let expired = database.redeem(HASH, KEY, 2_000).await;
    assert_eq!(expired, Err(RedeemError::Expired));
    let redeemed = database.redeem(HASH, KEY, 1_999).await?;
    assert_eq!(redeemed.sensor.as_str(), "town-hall-02020202");
    // The answer was lost: the same box asks again, even when the code would have expired meanwhile.
    assert_eq!(database.redeem(HASH, KEY, 9_999).await?, redeemed);
    assert_eq!(database.redeem(HASH, [3; 32], 1_999).await, Err(RedeemError::Used));
    assert_eq!(database.sensors().await?.len(), 1);

    assert!(database.admitted(&redeemed.member, &redeemed.sensor, KEY).await?);
    assert!(!database.admitted(&redeemed.member, &redeemed.sensor, [3; 32]).await?);
    database.revoke_sensor(redeemed.sensor.as_str(), 3_000).await?;
    assert!(!database.admitted(&redeemed.member, &redeemed.sensor, KEY).await?);
    let nobody = database.revoke_sensor("nobody", 1).await.expect_err("there is no such sensor");
    assert_eq!(nobody.to_string(), "there is no sensor \"nobody\"");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_become_identifiers() -> Result<()> {
    let lab = Lab::new().await?;
    let database = lab.database().await?;
    let long = "x".repeat(100);
    let cases = [
        ("Town Hall", "town-hall-2"),
        ("  St. Mary's — School  ", "st-mary-s-school"),
        ("Größe 7", "gr-e-7"),
        (long.as_str(), &long[..48]),
    ];
    for (name, id) in cases {
        assert_eq!(database.add_member(name, &[], 1).await?.id.as_str(), id, "{name}");
    }
    assert!(database.add_member("—", &[], 1).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_learns_of_a_code_what_it_may_and_no_more() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    assert_eq!(running.ingest.redeem(HASH, KEY).await, Err(RedeemError::Unknown));
    let peer = uplink::Peer {
        member: uplink::MemberId::parse("town-hall")?,
        sensor: crate::lab::sensor(),
        certificate_sha256: [0; 32],
        public_key: KEY,
    };
    assert!(!running.ingest.admitted(&peer).await?);
    running.stop().await
}
