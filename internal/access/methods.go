package access

// rule says who may call a method.
type rule struct {
	// least is the role from which on it may be called; for readers, operators and admins.
	least Role
	// replicator says what a replicator may do with it.
	replicator scope
	// changes says that it changes the configuration: each call leaves a line in the audit log.
	changes bool
}

// scope is how far a method is open to replicators.
type scope int

const (
	never  scope = iota // it tells of others, or changes something
	always              // it tells nothing of rows and tables
	bySet               // its request names a set, which has to be granted
	whole               // it tells of all tables, and cannot be asked for less
)

// methods holds every method of every service. A method that is not here is refused.
var methods = map[string]rule{
	"/syncline.server.v1.ServerService/GetServer": {least: Reader, replicator: always},

	"/syncline.access.v1.AccessService/CreatePrincipal": {least: Admin, changes: true},
	"/syncline.access.v1.AccessService/ListPrincipals":  {least: Admin},
	"/syncline.access.v1.AccessService/DeletePrincipal": {least: Admin, changes: true},
	"/syncline.access.v1.AccessService/RotateToken":     {least: Admin, changes: true},

	"/syncline.inventory.v1.InventoryService/GetInventory": {least: Reader, replicator: bySet},
	"/syncline.inventory.v1.InventoryService/Dump":         {least: Operator, replicator: bySet},
	"/syncline.inventory.v1.InventoryService/Checksum":     {least: Operator, replicator: bySet},
	"/syncline.inventory.v1.InventoryService/ReadRows":     {least: Operator, replicator: bySet},
	// A snapshot's id is a secret that only who opened it knows, so a replicator renews and closes its own.
	"/syncline.inventory.v1.InventoryService/OpenSnapshot":  {least: Operator, replicator: always},
	"/syncline.inventory.v1.InventoryService/RenewSnapshot": {least: Operator, replicator: always},
	"/syncline.inventory.v1.InventoryService/CloseSnapshot": {least: Operator, replicator: always},
	"/syncline.inventory.v1.InventoryService/ListSnapshots": {least: Operator},

	"/syncline.logger.v1.LoggerService/Follow":         {least: Operator, replicator: bySet},
	"/syncline.logger.v1.LoggerService/GetState":       {least: Reader, replicator: bySet},
	"/syncline.logger.v1.LoggerService/GetRanges":      {least: Reader, replicator: always},
	"/syncline.logger.v1.LoggerService/EmitBarrier":    {least: Operator, replicator: always},
	"/syncline.logger.v1.LoggerService/ListFollowers":  {least: Reader},
	"/syncline.logger.v1.LoggerService/ReportApplied":  {least: Operator, replicator: always}, // of its own follower
	"/syncline.logger.v1.LoggerService/DeleteFollower": {least: Operator, replicator: always, changes: true},

	"/syncline.applier.v1.ApplierService/CreateReplication": {least: Operator, changes: true},
	"/syncline.applier.v1.ApplierService/DeleteReplication": {least: Operator, changes: true},
	"/syncline.applier.v1.ApplierService/StartReplication":  {least: Operator, changes: true},
	"/syncline.applier.v1.ApplierService/StopReplication":   {least: Operator, changes: true},
	"/syncline.applier.v1.ApplierService/GetReplication":    {least: Reader},
	"/syncline.applier.v1.ApplierService/ListReplications":  {least: Reader},
	"/syncline.applier.v1.ApplierService/WatchReplication":  {least: Reader},
	"/syncline.applier.v1.ApplierService/RunReplication":    {least: Operator, changes: true},
	"/syncline.applier.v1.ApplierService/WatchReplications": {least: Reader},
	"/syncline.applier.v1.ApplierService/ListRuns":          {least: Reader},
	"/syncline.applier.v1.ApplierService/WatchRuns":         {least: Reader},
	"/syncline.applier.v1.ApplierService/CheckReplication":  {least: Operator}, // it connects where it is told to
	"/syncline.applier.v1.ApplierService/WaitReplication":   {least: Operator}, // it writes to the source
	"/syncline.applier.v1.ApplierService/VerifyReplication": {least: Operator},
	"/syncline.applier.v1.ApplierService/RepairReplication": {least: Operator, changes: true},
	"/syncline.applier.v1.ApplierService/SyncReplication":   {least: Operator, changes: true},
	"/syncline.applier.v1.ApplierService/CancelSync":        {least: Operator, changes: true},
	"/syncline.applier.v1.ApplierService/ListSyncs":         {least: Reader},
	"/syncline.applier.v1.ApplierService/GetSync":           {least: Operator}, // it has the keys of rows
	"/syncline.applier.v1.ApplierService/ListUnsynced":      {least: Operator}, // it has the keys of rows
	"/syncline.applier.v1.ApplierService/GetUnsynced":       {least: Operator}, // it has rows
	"/syncline.applier.v1.ApplierService/ListUnsyncedEdits": {least: Operator}, // it has values of rows
	"/syncline.applier.v1.ApplierService/RetryUnsynced":     {least: Operator, changes: true},
	"/syncline.applier.v1.ApplierService/DiscardUnsynced":   {least: Operator, changes: true},
	"/syncline.applier.v1.ApplierService/WatchSync":         {least: Operator},

	// They change what is applied, or begin it anew.
	"/syncline.applier.v1.ApplierService/UpdateReplication":      {least: Operator, changes: true},
	"/syncline.applier.v1.ApplierService/ResyncReplication":      {least: Operator, changes: true},
	"/syncline.applier.v1.ApplierService/ListReplicationEvents":  {least: Reader},
	"/syncline.applier.v1.ApplierService/WatchReplicationEvents": {least: Reader},

	"/syncline.logger.v1.LoggerService/CreateSet":        {least: Operator, changes: true},
	"/syncline.logger.v1.LoggerService/UpdateSet":        {least: Operator, changes: true},
	"/syncline.logger.v1.LoggerService/DeleteSet":        {least: Operator, changes: true},
	"/syncline.logger.v1.LoggerService/GetSet":           {least: Reader, replicator: whole},
	"/syncline.logger.v1.LoggerService/ListSets":         {least: Reader, replicator: whole},
	"/syncline.logger.v1.LoggerService/ListUpdatedSince": {least: Operator, replicator: bySet}, // it lists keys of rows
	"/syncline.logger.v1.LoggerService/GetConfig":        {least: Reader},
	"/syncline.logger.v1.LoggerService/UpdateConfig":     {least: Admin, changes: true},
	"/syncline.logger.v1.LoggerService/StartCapture":     {least: Operator, changes: true},
	"/syncline.logger.v1.LoggerService/StopCapture":      {least: Operator, changes: true},

	// A push makes a replication and is its source: that is an operator's affair, as if it were created here.
	"/syncline.tunnel.v1.TunnelService/Carry":      {least: Operator, changes: true},
	"/syncline.push.v1.PushService/CreatePush":     {least: Operator, changes: true},
	"/syncline.push.v1.PushService/UpdatePush":     {least: Operator, changes: true},
	"/syncline.push.v1.PushService/StartPush":      {least: Operator, changes: true},
	"/syncline.push.v1.PushService/StopPush":       {least: Operator, changes: true},
	"/syncline.push.v1.PushService/DeletePush":     {least: Operator, changes: true},
	"/syncline.push.v1.PushService/GetPush":        {least: Reader},
	"/syncline.push.v1.PushService/ListPushes":     {least: Reader},
	"/syncline.push.v1.PushService/WatchPushes":    {least: Reader},
	"/syncline.push.v1.PushService/ListPushEvents": {least: Reader},

	// What the API looks like is no secret, but a stream takes a place.
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {least: Reader, replicator: always},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {least: Reader, replicator: always},
}

// open are the methods that need no credential: what a load balancer asks, which names nothing.
var open = map[string]bool{
	"/grpc.health.v1.Health/Check": true,
	"/grpc.health.v1.Health/List":  true,
	"/grpc.health.v1.Health/Watch": true,
}

// Open tells whether a method needs no credential.
func Open(method string) bool { return open[method] }

// Changes tells whether a method changes the configuration. One that is not known counts as one that does.
func Changes(method string) bool {
	r, known := methods[method]
	return !open[method] && (!known || r.changes)
}
