//! A throw-away authority, for tests of whatever speaks TLS.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, PKCS_ECDSA_P256_SHA256,
    RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Years whose first of January certificates are valid from and to, where that is no matter.
pub(crate) const VALID: (i32, i32) = (2020, 2090);

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(crate) pem: String,
}

/// A chain and its key, in PEM.
pub(crate) struct Pair {
    pub(crate) chain: String,
    pub(crate) key: String,
    serial: SerialNumber,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// For these names or addresses, valid from and to the first of January of two years.
    pub(crate) fn sign(
        &self,
        names: &[&str],
        algorithm: &'static SignatureAlgorithm,
        years: (i32, i32),
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("valid names");
        self.issue(params, algorithm, years)
    }

    /// A server's, of this name or address.
    pub(crate) fn server(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, &PKCS_ECDSA_P256_SHA256, VALID)
    }

    /// A client's, with these URIs.
    pub(crate) fn client(&self, uris: &[&str]) -> Pair {
        self.client_until(uris, VALID.1)
    }

    /// As [`Authority::client`], valid until the first of January of a year.
    pub(crate) fn client_until(&self, uris: &[&str], year: i32) -> Pair {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        let uris = uris.iter().map(|&uri| uri.try_into().expect("a URI"));
        params.subject_alt_names = uris.map(SanType::URI).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, &PKCS_ECDSA_P256_SHA256, (VALID.0, year))
    }

    /// A list of these certificates, which was to be renewed long ago.
    pub(crate) fn revoking(&self, revoked: &[&Pair]) -> String {
        let revoked = revoked.iter().map(|pair| RevokedCertParams {
            serial_number: pair.serial.clone(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2020, 2, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        list.pem().expect("PEM")
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        algorithm: &'static SignatureAlgorithm,
        years: (i32, i32),
    ) -> Pair {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let serial = SerialNumber::from_slice(&key.public_key_raw()[1..9]);
        params.serial_number = Some(serial.clone());
        let chain = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair {
            serial,
            chain: chain.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Pair {
    pub(crate) fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        let chain = chain.collect::<Result<_, _>>().expect("a chain");
        (chain, key.expect("a key"))
    }
}
