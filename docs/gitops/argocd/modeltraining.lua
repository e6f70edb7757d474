-- Health of a ModelTraining. A training that works or waits is Progressing, one that is suspended Suspended, one that has
-- failed for good Degraded; Healthy only when the model of this generation is there.
local hs = { status = "Progressing", message = "the operator has not seen it yet" }
local status = obj.status
if status == nil or status.conditions == nil then
  return hs
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
local told = found.Succeeded
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
