BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
) STRICT;
INSERT INTO "_sqlite_migrations" VALUES(1,'agent','0001_jobs','2026-11-23 22:02:56.559371+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'agent','0002_desired_state','2026-11-23 22:02:56.561265+00:00');
CREATE TABLE "attachments" (
   "attachment_id" TEXT PRIMARY KEY,
   "volume_id" TEXT NOT NULL,
   "backend" TEXT NOT NULL,
   "incarnation" INTEGER NOT NULL,
   "sequence" INTEGER NOT NULL,
   "mode" TEXT NOT NULL,
   "wanted" INTEGER NOT NULL,
   "encryption" TEXT,
   "device" TEXT,
   "raw_device" TEXT,
   "raw" INTEGER,
   "identifiers" TEXT,
   "boot_id" TEXT,
   "created_at" REAL,
   "updated_at" REAL
) STRICT;
CREATE TABLE "epochs" (
   "operation" TEXT PRIMARY KEY,
   "epoch" INTEGER NOT NULL,
   "updated_at" REAL
) STRICT;
INSERT INTO "epochs" VALUES('op-clone',1,4102444800.0);
INSERT INTO "epochs" VALUES('op-fresh',1,4102444800.0);
INSERT INTO "epochs" VALUES('op-secret',1,4102444800.0);
INSERT INTO "epochs" VALUES('op-unwanted',1,4102444800.0);
INSERT INTO "epochs" VALUES('op-finished',1,4102444800.0);
INSERT INTO "epochs" VALUES('op-dead',1,4102444800.0);
INSERT INTO "epochs" VALUES('op-epoch',7,4102444800.0);
CREATE TABLE "exports" (
   "name" TEXT PRIMARY KEY,
   "volume_id" TEXT NOT NULL,
   "transport" TEXT NOT NULL,
   "incarnation" INTEGER,
   "sequence" INTEGER,
   "settings" TEXT,
   "boot_id" TEXT,
   "updated_at" REAL
) STRICT;
CREATE TABLE "generations" (
   "volume_id" TEXT PRIMARY KEY,
   "incarnation" INTEGER NOT NULL,
   "sequence" INTEGER NOT NULL,
   "updated_at" REAL
) STRICT;
CREATE TABLE "jobs" (
   "key" TEXT PRIMARY KEY NOT NULL,
   "operation" TEXT NOT NULL,
   "step" TEXT NOT NULL,
   "attempt" INTEGER NOT NULL,
   "epoch" INTEGER NOT NULL,
   "kind" TEXT NOT NULL,
   "version" INTEGER NOT NULL,
   "args" TEXT NOT NULL,
   "secret_names" TEXT,
   "state" TEXT NOT NULL,
   "seq" INTEGER NOT NULL,
   "progress" TEXT,
   "checkpoint" TEXT,
   "result" TEXT,
   "error" TEXT,
   "request_id" TEXT,
   "cancel_requested" INTEGER,
   "created_at" REAL,
   "updated_at" REAL,
   "boot_id" TEXT
) STRICT;
INSERT INTO "jobs" VALUES('op-clone/make/1','op-clone','make',1,1,'volume.clone',1,'{"backend":"files","volume_id":"00000000-0000-4000-8000-000000000002","size_bytes":2097152,"source_volume_id":"00000000-0000-4000-8000-000000000001","source_snapshot_id":null,"encrypted":false}','[]','running',4294967299,'{"phase":"clone","done":1048576,"total":2097152,"rate":1.0,"eta_s":1.0}','{"copied":1048576}',NULL,NULL,'req-op-clone',0,1795471376.56292,1.79547137656644201272e+09,'3c2a7c1e-0000-4000-8000-000000000000');
INSERT INTO "jobs" VALUES('op-fresh/make/1','op-fresh','make',1,1,'volume.create',1,'{"backend":"files","volume_id":"00000000-0000-4000-8000-000000000003","size_bytes":1048576,"encryption":null}','[]','queued',4294967296,NULL,NULL,NULL,NULL,'req-op-fresh',0,1.79547137656299757952e+09,1.79547137656299757952e+09,'3c2a7c1e-0000-4000-8000-000000000000');
INSERT INTO "jobs" VALUES('op-secret/make/1','op-secret','make',1,1,'volume.create',1,'{"backend":"files","volume_id":"00000000-0000-4000-8000-000000000004","size_bytes":1048576,"encryption":{"format":"luks1","cipher":"aes-xts-plain64","key_size":512}}','["volume"]','queued',4294967296,NULL,NULL,NULL,NULL,'req-op-secret',0,1.79547137656307482719e+09,1.79547137656307482719e+09,'3c2a7c1e-0000-4000-8000-000000000000');
INSERT INTO "jobs" VALUES('op-unwanted/make/1','op-unwanted','make',1,1,'volume.create',1,'{"backend":"files","volume_id":"00000000-0000-4000-8000-000000000005","size_bytes":1048576,"encryption":null}','[]','queued',4294967296,NULL,NULL,NULL,NULL,'req-op-unwanted',1,1.79547137656309151653e+09,1.79547137656309151653e+09,'3c2a7c1e-0000-4000-8000-000000000000');
INSERT INTO "jobs" VALUES('op-finished/make/1','op-finished','make',1,1,'volume.create',1,'{"backend":"files","volume_id":"00000000-0000-4000-8000-000000000006","size_bytes":1048576,"encryption":null}','[]','done',4294967300,NULL,NULL,'{"volume_id":"00000000-0000-4000-8000-000000000006","device_bytes":1048576,"usable_bytes":1048576}',NULL,'req-op-finished',0,1.79547137656310319903e+09,1.79547137656745958329e+09,'3c2a7c1e-0000-4000-8000-000000000000');
CREATE TABLE "starts" (
   "id" INTEGER PRIMARY KEY,
   "count" INTEGER NOT NULL
) STRICT;
INSERT INTO "starts" VALUES(1,1);
CREATE TABLE "tombstones" (
   "key" TEXT PRIMARY KEY,
   "epoch" INTEGER,
   "reason" TEXT NOT NULL,
   "created_at" REAL
) STRICT;
INSERT INTO "tombstones" VALUES('op-dead/make/1',1,'cancelled',4102444800.0);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX "idx_epochs_updated_at"
    ON "epochs" ("updated_at");
CREATE INDEX "idx_tombstones_created_at"
    ON "tombstones" ("created_at");
CREATE INDEX "idx_attachments_volume_id"
    ON "attachments" ("volume_id");
COMMIT;
