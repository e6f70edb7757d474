-- Health of every kind of Legion: Healthy when this generation is what it should be, a model that is there or a referent that can
-- be used; Degraded when only a change helps; Suspended when a training is; else Progressing, also while a training works or waits.
local hs = { status = "Progressing", message = "the operator has not seen it yet" }
local status = obj.status
if status == nil or status.conditions == nil then
  return hs
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
-- A run's own truth is Succeeded, that of what it refers to is Ready.
local told = found.Succeeded or found.Ready
if told ~= nil then
  hs.message = told.reason .. ": " .. told.message
end
-- What is said of an earlier generation says nothing of this one.
if status.observedGeneration ~= obj.metadata.generation then
  hs.message = "generation " .. tostring(obj.metadata.generation) .. " has not been seen yet"
  return hs
end
if told ~= nil and told.reason == "Suspended" then
  hs.status = "Suspended"
elseif found.Reconciling ~= nil and found.Reconciling.status == "True" then
  hs.status = "Progressing"
elseif found.Stalled ~= nil and found.Stalled.status == "True" then
  hs.status = "Degraded"
elseif found.Ready ~= nil and found.Ready.status == "True" then
  hs.status = "Healthy"
end
return hs
