//! The objects: `s3s-fs`, with conditions that hold, checksums first, and faults.

use crate::{
    faults::{Fault, Faults, Operation, afterwards},
    keyed::Keyed,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use s3s::{
    S3, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
        CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
        GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput,
        ListObjectsV2Input, ListObjectsV2Output, PutObjectInput, PutObjectOutput, StreamingBlob, UploadPartInput,
        UploadPartOutput,
    },
    s3_error,
};
use s3s_fs::FileSystem;
use std::{io, path::PathBuf, sync::Arc};

/// The largest body that is taken; it is held in memory.
const BODY_LIMIT: usize = 256 << 20;

#[derive(Debug)]
pub(crate) struct Objects {
    pub(crate) files: FileSystem,
    pub(crate) root: PathBuf,
    pub(crate) faults: Arc<Faults>,
    pub(crate) keys: Keyed,
}

impl Objects {
    fn bucket_exists(&self, bucket: &str) -> S3Result<()> {
        if self.root.join(bucket).is_dir() {
            return Ok(());
        }
        Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    /// s3s-fs calls an upload that it does not know a denied one.
    fn upload_exists(&self, upload: &str) -> S3Result<()> {
        if !upload.contains(['/', '.']) && self.root.join(format!(".upload-{upload}.json")).exists() {
            return Ok(());
        }
        Err(s3_error!(NoSuchUpload, "The specified upload does not exist."))
    }

    /// Reads a whole body, and compares it with the length and the CRC32C that came with it, before anything is stored.
    async fn body(&self, body: Option<StreamingBlob>, length: Option<i64>, crc32c: Option<&str>) -> S3Result<Bytes> {
        let Some(mut body) = body else { return Err(s3_error!(IncompleteBody)) };
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| s3s::S3Error::with_source(s3s::S3ErrorCode::IncompleteBody, e))?;
            tokio::time::sleep(self.faults.time_for(chunk.len())).await;
            if bytes.len() + chunk.len() > BODY_LIMIT {
                return Err(s3_error!(EntityTooLarge));
            }
            bytes.extend_from_slice(&chunk);
        }
        if length.is_some_and(|wanted| usize::try_from(wanted) != Ok(bytes.len())) {
            return Err(s3_error!(IncompleteBody));
        }
        if let Some(wanted) = crc32c {
            let found = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes) as u32;
            if STANDARD.encode(found.to_be_bytes()) != wanted {
                return Err(s3_error!(BadDigest, "The CRC32C you specified did not match the calculated checksum."));
            }
        }
        Ok(bytes.freeze())
    }
}

fn blob(bytes: Bytes) -> StreamingBlob {
    StreamingBlob::wrap(stream::iter([Ok::<_, io::Error>(bytes)]))
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.files.create_bucket(req).await
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.faults.meet(Operation::HeadBucket, "").await?;
        self.files.head_bucket(req).await
    }

    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.faults.remember(Operation::Put, &req.input.key, &req.headers);
        let fault = self.faults.meet(Operation::Put, &req.input.key).await?;
        self.bucket_exists(&req.input.bucket)?;
        let input = &mut req.input;
        let bytes = self.body(input.body.take(), input.content_length, input.checksum_crc32c.as_deref()).await?;
        input.body = Some(blob(bytes));
        // s3s-fs knows two classes, and does nothing about them.
        input.storage_class = None;
        if !self.faults.honours_conditions() {
            (input.if_none_match, input.if_match) = (None, None);
        }
        let _locked = self.keys.lock(&req.input.bucket, &req.input.key).await;
        let done = self.files.put_object(req).await?;
        afterwards(fault)?;
        Ok(done)
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let fault = self.faults.meet(Operation::Get, &req.input.key).await?;
        self.bucket_exists(&req.input.bucket)?;
        let mut done = self.files.get_object(req).await?;
        // s3s-fs reads its files in 4 KiB pieces; one piece is quicker, and what the faults need.
        if let Some(mut body) = done.output.body.take() {
            let mut bytes = BytesMut::new();
            while let Some(chunk) = body.next().await {
                bytes.extend_from_slice(
                    &chunk.map_err(|e| s3s::S3Error::with_source(s3s::S3ErrorCode::InternalError, e))?,
                );
            }
            tokio::time::sleep(self.faults.time_for(bytes.len())).await;
            let middle = bytes.len() / 2;
            if let (Some(Fault::WrongBytes), Some(byte)) = (fault, bytes.get_mut(middle)) {
                *byte ^= 1;
            }
            let mut chunks = vec![Ok(bytes.freeze())];
            if fault == Some(Fault::TornBody) {
                chunks = match chunks.pop() {
                    Some(Ok(whole)) => vec![Ok(whole.slice(..middle))],
                    _ => Vec::new(),
                };
                chunks.push(Err(io::Error::other("torn to order")));
            }
            done.output.body = Some(StreamingBlob::wrap(stream::iter(chunks)));
        }
        afterwards(fault)?;
        Ok(done)
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let fault = self.faults.meet(Operation::Head, &req.input.key).await?;
        let done = self.files.head_object(req).await?;
        afterwards(fault)?;
        Ok(done)
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let prefix = req.input.prefix.clone().unwrap_or_default();
        let fault = self.faults.meet(Operation::List, &prefix).await?;
        let done = self.files.list_objects_v2(req).await?;
        afterwards(fault)?;
        Ok(done)
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let fault = self.faults.meet(Operation::Delete, &req.input.key).await?;
        let _locked = self.keys.lock(&req.input.bucket, &req.input.key).await;
        let done = self.files.delete_object(req).await?;
        afterwards(fault)?;
        Ok(done)
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let first = req.input.delete.objects.first().map(|o| o.key.clone()).unwrap_or_default();
        let fault = self.faults.meet(Operation::Delete, &first).await?;
        self.bucket_exists(&req.input.bucket)?;
        if req.input.delete.objects.len() > 1000 {
            return Err(s3_error!(MalformedXML, "at most 1000 objects"));
        }
        let done = self.files.delete_objects(req).await?;
        afterwards(fault)?;
        Ok(done)
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.faults.remember(Operation::CreateUpload, &req.input.key, &req.headers);
        let fault = self.faults.meet(Operation::CreateUpload, &req.input.key).await?;
        self.bucket_exists(&req.input.bucket)?;
        let done = self.files.create_multipart_upload(req).await?;
        afterwards(fault)?;
        Ok(done)
    }

    async fn upload_part(&self, mut req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let fault = self.faults.meet(Operation::UploadPart, &req.input.key).await?;
        self.upload_exists(&req.input.upload_id)?;
        let input = &mut req.input;
        let bytes = self.body(input.body.take(), input.content_length, input.checksum_crc32c.as_deref()).await?;
        input.body = Some(blob(bytes));
        let done = self.files.upload_part(req).await?;
        afterwards(fault)?;
        Ok(done)
    }

    async fn complete_multipart_upload(
        &self,
        mut req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let fault = self.faults.meet(Operation::CompleteUpload, &req.input.key).await?;
        if !self.faults.honours_conditions() {
            (req.input.if_none_match, req.input.if_match) = (None, None);
        }
        let _locked = self.keys.lock(&req.input.bucket, &req.input.key).await;
        self.upload_exists(&req.input.upload_id)?;
        let done = self.files.complete_multipart_upload(req).await?;
        afterwards(fault)?;
        Ok(done)
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let fault = self.faults.meet(Operation::AbortUpload, &req.input.key).await?;
        self.upload_exists(&req.input.upload_id)?;
        let done = self.files.abort_multipart_upload(req).await?;
        afterwards(fault)?;
        Ok(done)
    }
}
