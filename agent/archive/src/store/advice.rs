//! What to do about a refusal that has to do with what was asked for beside the object (encryption, class, tags), or with whoever
//! lends the keys. Pure.

use super::{
    config::{Config, Encryption},
    credentials::{Credentials, Lender, WebIdentity},
    error::{Call, Reason},
};

/// What a refusal means and what to do about it; `None`: the reason says all there is to say. `said` is the store's message.
pub(super) fn advice(config: &Config, call: Call, reason: Reason, code: &str, said: &str) -> Option<String> {
    if let (Reason::NotLent | Reason::LenderAway, Credentials::Lent(lender)) = (reason, &config.credentials) {
        return Some(lent(lender, reason == Reason::LenderAway, &config.region));
    }
    if reason == Reason::Denied {
        return denied(config, call, said).map(|grant| format!("the credentials may not do that; grant {grant}"));
    }
    if code.starts_with("KMS.") {
        let which = key(config);
        return Some(format!("{which} cannot be used; it must be there, enabled, and in the bucket's region"));
    }
    match (code, &config.storage_class, &config.encryption) {
        ("InvalidStorageClass", Some(class), _) => {
            Some(format!("it does not know the class {class}; correct storageClass, or leave it out"))
        }
        ("InvalidTag", ..) if !config.tags.is_empty() => {
            Some("it does not take these tags; correct tags, or leave them out".into())
        }
        (_, _, Encryption::S3 | Encryption::Kms(_))
            if creates(call)
                && matches!(reason, Reason::Refused | Reason::Unsupported)
                && ["ncrypt", "KMS", "SSE"].iter().any(|word| said.contains(word) || code.contains(word)) =>
        {
            Some("it does not encrypt as serverSideEncryption asks; set its keys up, or leave that out".into())
        }
        _ => None,
    }
}

/// Whether the call carries what is asked for beside the object.
fn creates(call: Call) -> bool {
    matches!(call, Call::Put | Call::BeginUpload)
}

/// What keeps keys from being lent.
fn lent(lender: &Lender, away: bool, region: &str) -> String {
    match (lender, away) {
        (Lender::WebIdentity(_), true) => format!(
            "there is no connection to the security token service of {region}, which lends the keys; check region and network policies"
        ),
        (Lender::WebIdentity(WebIdentity { role_arn, account, .. }), false) => format!(
            "the role {role_arn} is not lent to this pod; its trust policy must allow sts:AssumeRoleWithWebIdentity to {account} \
             with the audience sts.amazonaws.com, and its account must know this cluster's issuer"
        ),
        (Lender::PodIdentity { account }, _) => format!(
            "this pod is given no keys; associate a role with {account} (EKS Pod Identity), and have the pod made anew if that is \
             later than the pod"
        ),
        (Lender::InstanceRole, true) => "the node's metadata service cannot be reached from pods; allow it two hops \
             (HttpPutResponseHopLimit), and check the network policies"
            .into(),
        (Lender::InstanceRole, false) => "the node lends no keys; give its instance a role".into(),
    }
}

fn key(config: &Config) -> String {
    match &config.encryption {
        Encryption::Kms(Some(key)) => format!("the key {key}"),
        Encryption::Kms(None) => "the account's key for S3".into(),
        Encryption::BucketDefault | Encryption::S3 => "the key with which the bucket is encrypted".into(),
    }
}

/// What is to be granted, where it is more than the call's own permission, or something else.
fn denied(config: &Config, call: Call, said: &str) -> Option<String> {
    let on_key = |grant: &str| format!("{grant} on {}", key(config));
    // AWS says itself what was missing, if anything did.
    if said.contains("kms:") {
        return Some(on_key("kms:GenerateDataKey and kms:Decrypt"));
    }
    if said.contains("PutObjectTagging") {
        return Some("s3:PutObjectTagging, which tags need".into());
    }
    let mut all = vec![call.permission().to_owned()];
    if creates(call) && !config.tags.is_empty() {
        all.push("s3:PutObjectTagging".into());
    }
    if let Encryption::Kms(_) = config.encryption {
        match call {
            Call::Get => all.push(on_key("kms:Decrypt")),
            Call::Put | Call::BeginUpload | Call::UploadPart | Call::FinishUpload => {
                all.push(on_key("kms:GenerateDataKey and kms:Decrypt"));
            }
            _ => {}
        }
    }
    (all.len() > 1).then(|| all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Credentials, Keys};

    fn config() -> Config {
        Config::new("b", "r", Credentials::keys(Keys::new("a", "s", None)))
    }

    #[test]
    fn what_was_asked_for_beside_the_object_is_named_when_it_may_be_the_reason() {
        let kms = Config { encryption: Encryption::Kms(Some("alias/k".into())), ..config() };
        let all = Config { tags: [("team".into(), "shop".into())].into(), ..kms.clone() };
        let denied = |config: &Config, call, said| advice(config, call, Reason::Denied, "AccessDenied", said);
        assert_eq!(denied(&config(), Call::Put, "Access Denied"), None);
        assert_eq!(denied(&all, Call::List, "Access Denied"), None);
        let said = denied(&all, Call::Put, "Access Denied").unwrap();
        let granted = "grant s3:PutObject, s3:PutObjectTagging, kms:GenerateDataKey and kms:Decrypt on the key alias/k";
        assert!(said.ends_with(granted), "{said}");
        let said = denied(&all, Call::Get, "Access Denied").unwrap();
        assert!(said.ends_with("grant s3:GetObject, kms:Decrypt on the key alias/k"), "{said}");
        // Where the store says what it was, nothing else is.
        let said = denied(&all, Call::Put, "not authorized to perform: s3:PutObjectTagging on resource").unwrap();
        assert!(said.ends_with("grant s3:PutObjectTagging, which tags need"), "{said}");
        let said = denied(&config(), Call::Put, "not authorized to perform: kms:GenerateDataKey on resource").unwrap();
        assert!(
            said.ends_with("grant kms:GenerateDataKey and kms:Decrypt on the key with which the bucket is encrypted")
        );
    }

    #[test]
    fn what_a_store_does_not_know_is_named() {
        let of =
            |config: &Config, reason, code, said| advice(config, Call::Put, reason, code, said).unwrap_or_default();
        let class = Config { storage_class: Some("COLD".into()), ..config() };
        assert!(of(&class, Reason::Refused, "InvalidStorageClass", "").contains("the class COLD"));
        let kms = Config { encryption: Encryption::Kms(None), ..config() };
        assert!(
            of(&kms, Reason::Refused, "KMS.NotFoundException", "")
                .starts_with("the account's key for S3 cannot be used")
        );
        let minio = "NotImplemented, Server side encryption specified but KMS is not configured";
        assert!(of(&kms, Reason::Unsupported, "NotImplemented", minio).contains("serverSideEncryption"));
        assert_eq!(of(&config(), Reason::Unsupported, "NotImplemented", minio), "");
        let tags = Config { tags: [("a".into(), "b".into())].into(), ..config() };
        assert!(of(&tags, Reason::Refused, "InvalidTag", "").contains("correct tags"));
    }
}
